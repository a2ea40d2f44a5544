/**
 * The Go programs of `go/`, built offline with Debian's packages: containerd's own snapshotter suite as a client of a
 * socket, its overlayfs snapshotter behind one, and a client that measures calls.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { tempDir } from '../../support/temp.js';
import { requirePeers, type Hooks } from '../support.js';

const SOURCES = join(import.meta.dirname, 'go');
/** Where Debian's `golang-…-dev` packages lie. */
const GO_PATH = '/usr/share/gocode';

/** Builds one of them and gives its path. Go keeps what it compiled, so only the first build takes its time. */
export function goProgram(t: Hooks, name: 'suite' | 'overlayfs' | 'calls'): string {
  requirePeers('go');
  const directory = tempDir(t, `go-${name}`);
  const program = join(directory, name);
  const words = name === 'suite' ? ['test', '-c'] : ['build'];
  execFileSync('go', [...words, '-o', program, '.'], {
    cwd: join(SOURCES, name),
    env: { ...process.env, GOPATH: `${directory}:${GO_PATH}`, GO111MODULE: 'off', GOPROXY: 'off', CGO_ENABLED: '0' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  return program;
}
