/** `layerstore unshare`: a program in a user namespace with the caller's subordinate ids. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { constants, userInfo } from 'node:os';
import { commandPath } from '../../engine/js/command.js';
import { LayerStoreError } from '../../index.js';
import type { Command } from '../command.js';

/** The programs that it runs, and the Debian package of each. */
const NEEDED = { unshare: 'util-linux', newuidmap: 'uidmap', newgidmap: 'uidmap' } as const;

export const unshare: Command = {
  name: 'unshare',
  summary: 'run a program in a user namespace: overlay2 without root',
  usage: '[COMMAND [ARGUMENT…]]',
  details:
    'The program, a shell by default, is root of a new user namespace that has your own id and your subordinate ids\n' +
    '(/etc/subuid, /etc/subgid), and of a mount namespace: mounts that are made in it end with it.',
  examples: ['layerstore unshare layerstore pull debian:12', 'layerstore unshare'],
  positionals: [0, Infinity],
  verbatim: true,
  completes: [],
  async run(_context, words) {
    const command = words.length === 0 ? [process.env['SHELL'] ?? '/bin/sh'] : words;
    requireRanges();
    for (const helper of ['newuidmap', 'newgidmap'] as const) requireProgram(helper);
    return runToItsEnd(requireProgram('unshare'), [
      '--user',
      '--map-root-user',
      '--map-auto',
      '--mount',
      '--',
      ...command,
    ]);
  },
};

function requireProgram(name: keyof typeof NEEDED): string {
  const path = commandPath(name);
  if (path !== undefined) return path;
  throw new LayerStoreError(
    'ERR_NOT_SUPPORTED',
    `cannot make a user namespace: the system has no program "${name}"; install it (Debian's package ${NEEDED[name]})`,
  );
}

/** ERR_NOT_SUPPORTED that says which line is missing where the caller has no subordinate ids (subuid(5)). */
function requireRanges(): void {
  const { username, uid } = user();
  for (const file of ['/etc/subuid', '/etc/subgid']) {
    const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
    if (text.split('\n').some((line) => hasRange(line, username, uid))) continue;
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `cannot make a user namespace: ${file} has no line for you; as root add one like "${username ?? uid}:100000:65536", with a range that no other line has`,
    );
  }
}

function hasRange(line: string, username: string | undefined, uid: number): boolean {
  const [name, first, count] = line.split(':');
  return (name === username || name === String(uid)) && Number(first) > 0 && Number(count) > 0;
}

function user(): { username: string | undefined; uid: number } {
  const uid = process.getuid?.() ?? 0;
  try {
    return { username: userInfo().username, uid };
  } catch {
    return { username: undefined, uid }; // an id without a line in /etc/passwd
  }
}

/** The program has the terminal; signals of the keyboard reach it by themselves. Its exit code, as a shell would give it. */
function runToItsEnd(path: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(path, args, { stdio: 'inherit' });
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
    });
  });
}
