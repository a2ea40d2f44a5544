/** Runs a piece of JavaScript as somebody who is not root, in a process of its own. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** nobody, as Debian numbers it; any id without rights would do. */
export const NOBODY = 65534;

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

/**
 * Runs `module` (an ES module's text; it may import `#src/…` by `globalThis.src('store/open.js')`) with uid and gid
 * `user`. The caller makes what it needs readable and writable for that user.
 */
export async function runAsUser(
  module: string,
  { user = NOBODY, args = [] }: { user?: number; args?: string[] } = {},
): Promise<Outcome> {
  const source = fileURLToPath(new URL('../../src/', import.meta.url));
  const text = `globalThis.src = (name) => import(${JSON.stringify(`file://${source}`)} + name);\n${module}`;
  const flags = ['--import', import.meta.resolve('tsx'), '--input-type=module', '-e', text, ...args];
  return run(process.execPath, flags, {
    uid: user,
    gid: user,
    env: { PATH: process.env['PATH'], HOME: '/nonexistent' },
  });
}

function run(
  command: string,
  args: string[],
  options: { uid: number; gid: number; env: NodeJS.ProcessEnv },
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const)
      child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text));
    child.on('error', reject).on('close', (status) => resolve({ status, ...output }));
  });
}
