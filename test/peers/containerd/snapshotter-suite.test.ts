/** containerd's own snapshotter suite, through its client of a snapshots service on a socket. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { tempDir } from '../../support/temp.js';
import { inReverse } from '../support.js';
import { goProgram } from './programs.js';

/** Tests of containerd 1.6's suite; `Rename` skips itself, since overlayfs gives EXDEV for it. */
const TESTS = 21;
const SKIPPED = ['Rename'];

/** Runs the suite against `command ROOT SOCKET`, with its roots below `directory`. */
function runSuite(suite: string, command: string, directory: string): Map<string, string> {
  const { stdout, stderr } = spawnSync(suite, ['-test.root', '-test.v', '-test.parallel', '2'], {
    cwd: directory,
    env: { ...process.env, SNAPSHOTTER_COMMAND: command, TMPDIR: directory },
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  });
  const results = new Map<string, string>();
  for (const [, result = '', name = ''] of stdout.matchAll(/^ +--- (\w+): TestSnapshotter\/(\S+)/gm))
    results.set(name, result);
  const failed = [...results].filter(([, result]) => result === 'FAIL').map(([name]) => name);
  assert.deepEqual(failed, [], `${stdout.slice(-20_000)}\n${stderr.slice(-5_000)}`);
  return results;
}

function assertAllPassed(results: ReadonlyMap<string, string>): void {
  assert.equal(results.size, TESTS);
  const others = [...results].filter(([, result]) => result !== 'PASS').map(([name]) => name);
  assert.deepEqual(others, SKIPPED);
}

describe("containerd's snapshotter suite", () => {
  it('passes with its own overlayfs snapshotter, so it is set up rightly', (context) => {
    const t = inReverse(context);
    const directory = tempDir(t, 'suite');
    assertAllPassed(runSuite(goProgram(t, 'suite'), goProgram(t, 'overlayfs'), directory));
  });
});
