/** containerd's own snapshotter suite, through its client of a snapshots service on a socket. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Disks } from '../../faults/support/disks.js';
import { tempDir } from '../../support/temp.js';
import { inReverse, type Hooks } from '../support.js';
import { MAIN } from './daemons.js';
import { goProgram } from './programs.js';

/** Tests of containerd 1.6's suite; `Rename` skips itself, since overlayfs gives EXDEV for it. */
const TESTS = 21;
const SKIPPED = ['Rename'];
/** The suite stacks 128 layers, with sockets and stores of 20 more tests beside them. */
const XFS_BYTES = 1024 * 1024 * 1024;

/** Runs the suite against `program ROOT SOCKET`, with its roots below `directory`. */
function assertPasses(t: Hooks, program: string, directory: string): void {
  const { stdout, stderr } = spawnSync(goProgram(t, 'suite'), ['-test.root', '-test.v', '-test.parallel', '2'], {
    cwd: directory,
    env: { ...process.env, SNAPSHOTTER_COMMAND: program, TMPDIR: directory, NODE_OPTIONS: '' },
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  });
  const results = [...stdout.matchAll(/^ +--- (\w+): TestSnapshotter\/(\S+)/gm)];
  const names = (result: string): string[] => results.flatMap(([, each, name = '']) => (each === result ? [name] : []));
  assert.deepEqual(names('FAIL'), [], `${stdout.slice(-20_000)}\n${stderr.slice(-5_000)}`);
  assert.deepEqual(names('SKIP'), SKIPPED);
  assert.equal(names('PASS').length, TESTS - SKIPPED.length, `${stdout.slice(-20_000)}\n${stderr.slice(-5_000)}`);
}

/** `layerstore containerd` as the suite calls a service. */
function ours(t: Hooks): string {
  const program = join(tempDir(t, 'program'), 'serve');
  writeFileSync(program, `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" --root "$1" containerd --address "$2"\n`);
  chmodSync(program, 0o755);
  return program;
}

describe("containerd's snapshotter suite", () => {
  it('passes with its own overlayfs snapshotter, so it is set up rightly', (context) => {
    const t = inReverse(context);
    assertPasses(t, goProgram(t, 'overlayfs'), tempDir(t, 'suite'));
  });

  it('passes with ours', (context) => {
    const t = inReverse(context);
    assertPasses(t, ours(t), tempDir(t, 'suite'));
  });

  it('passes with ours on XFS', (context) => {
    const t = inReverse(context);
    const disks = Disks.plain(t);
    const directory = disks.mount(disks.image('xfs', { bytes: XFS_BYTES }), 'xfs');
    t.after(() => disks.unmount(directory));
    assertPasses(t, ours(t), directory);
  });
});
