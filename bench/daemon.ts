/** Programs that need a server: each run has a fresh one on a fresh directory, started before the measured time. */
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { measureCommand } from './command.js';
import type { Contestant } from './contestants.js';
import type { Sample } from './sample.js';

const execute = promisify(execFile);

/** Clock ticks a second of /proc/PID/stat, milliseconds each. */
const TICK = 10;

export interface Served {
  /** Files the server reads at its start. */
  prepare?(directory: string): Promise<void>;
  /** Absent: the program needs none. */
  server?(directory: string): readonly string[];
  /** Succeeds once the server answers. */
  probe?(directory: string): readonly string[];
  /** What is measured. */
  work(directory: string): readonly string[];
}

export class ServedContestant implements Contestant {
  readonly name: string;
  readonly #scratch: string;
  readonly #prepare: () => Promise<number>;
  readonly #served: Served;
  #bytes = 0;
  #n = 0;

  /** @param prepare makes the inputs; gives the bytes that a run works on */
  constructor(name: string, scratch: string, prepare: () => Promise<number>, served: Served) {
    this.name = name;
    this.#scratch = scratch;
    this.#prepare = prepare;
    this.#served = served;
  }

  async start(): Promise<void> {
    this.#bytes = await this.#prepare();
  }

  async run(): Promise<Sample> {
    const directory = `${this.#scratch}-${this.#n++}`;
    await mkdir(directory, { recursive: true });
    let server: ChildProcess | undefined;
    try {
      await this.#served.prepare?.(directory);
      const words = this.#served.server?.(directory);
      if (words !== undefined) server = await this.#startServer(words, this.#served.probe?.(directory) ?? ['true']);
      const before = serverCpu(server);
      const sample = await measureCommand(this.#served.work(directory), { cwd: directory });
      return { ...sample, cpu: sample.cpu + serverCpu(server) - before, bytes: this.#bytes };
    } finally {
      await stop(server);
      unmountBelow(directory);
    }
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }

  async #startServer([program = '', ...args]: readonly string[], probe: readonly string[]): Promise<ChildProcess> {
    const server = spawn(program, args, { stdio: 'ignore' });
    for (let attempt = 0; attempt < 300; attempt++) {
      try {
        await execute(probe[0] ?? '', probe.slice(1));
        return server;
      } catch {
        // Not ready yet; the loop ends it.
        if (server.exitCode !== null) break;
        await sleep(200);
      }
    }
    await stop(server);
    throw new Error(`${this.name}: ${program} does not answer`);
  }
}

async function stop(server: ChildProcess | undefined): Promise<void> {
  if (server === undefined || server.exitCode !== null || server.signalCode !== null) return;
  const ended = new Promise((resolve) => server.once('exit', resolve));
  server.kill('SIGTERM');
  const late = setTimeout(() => server.kill('SIGKILL'), 30_000);
  await ended;
  clearTimeout(late);
}

/** Of the process and the children it waited for, milliseconds; servers of its own that still run are not in it. */
function serverCpu(server: ChildProcess | undefined): number {
  if (server?.pid === undefined) return 0;
  const fields = readFileSync(`/proc/${server.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) * TICK, 0);
}

/** What a program left mounted there. */
function unmountBelow(directory: string): void {
  const targets = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((target) => target.startsWith(`${directory}/`));
  for (const target of targets.reverse()) execFileSync('umount', ['-l', '--', target]);
}
