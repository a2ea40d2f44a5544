/** A piece of JavaScript in a process of its own, which gets to some point and is killed there. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

export interface OtherProcess {
  readonly pid: number;
  /** What it printed first. */
  readonly said: string;
  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void>;
}

/**
 * Runs `module` (an ES module's text, which may import the package's TypeScript by its URL) until it prints something,
 * then keeps it running. Rejects where it ends before it prints.
 */
export async function runUntilItSpeaks(module: string): Promise<OtherProcess> {
  const text = `setInterval(() => {}, 1000);\n${module}`;
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', text], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  const first = (await Promise.race([once(child.stdout, 'data'), ended.then(() => undefined)])) as [Buffer] | undefined;
  if (first === undefined || child.pid === undefined) throw new Error('the process ended before it got so far');
  return {
    pid: child.pid,
    said: first[0].toString().trim(),
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
