/** Measures a command from outside, as `time` does. */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import type { Sample } from './sample.js';

/** Runs `words` to its end; a failure is an error. CPU and peak come from GNU-less `/proc` bookkeeping of a small wrapper. */
export async function measureCommand(
  words: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; stdout?: string } = {},
): Promise<Sample> {
  // python's resource module gives what wait4(2) says of the child: CPU and peak memory.
  const wrapper =
    'import os,sys,time\n' +
    't=time.monotonic()\n' +
    'p=os.posix_spawnp(sys.argv[1],sys.argv[1:],os.environ)\n' +
    '_,s,u=os.wait4(p,0)\n' +
    'w=time.monotonic()-t\n' +
    'print(w,u.ru_utime+u.ru_stime,u.ru_maxrss,file=open(3,"w"))\n' +
    'sys.exit(os.waitstatus_to_exitcode(s))\n';
  const out = openSync(options.stdout ?? '/dev/null', 'w');
  try {
    const child = spawn('/usr/bin/python3', ['-c', wrapper, ...words], {
      cwd: options.cwd,
      env: options.env ?? process.env,
      stdio: ['ignore', out, 'pipe', 'pipe'],
    });
    const text = (stream: NodeJS.ReadableStream | null | undefined): Promise<string> =>
      new Promise((resolve) => {
        let all = '';
        stream?.setEncoding?.('utf8');
        stream?.on('data', (chunk: string) => (all += chunk));
        stream?.on('end', () => resolve(all));
      });
    const figures = text(child.stdio[3] as NodeJS.ReadableStream);
    const complaints = text(child.stderr);
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
    if (code !== 0) throw new Error(`${words.join(' ')} exited with ${code}: ${(await complaints).trim()}`);
    const [wall = 0, cpu = 0, peak = 0] = (await figures).trim().split(' ').map(Number);
    return { wall: wall * 1000, cpu: cpu * 1000, peak: peak * 1024 };
  } finally {
    closeSync(out);
  }
}
