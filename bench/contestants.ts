/** Who takes part in a trial: an engine of this package in a process of its own, or a command of the system. */
import { fork, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { measureCommand } from './command.js';
import type { Parameters } from './operation.js';
import type { Sample } from './sample.js';

export interface Contestant {
  readonly name: string;
  start(): Promise<void>;
  run(): Promise<Sample>;
  stop(): Promise<void>;
}

/** Workers that have nothing to do, by engine. Starting one costs more than many a trial, so they are used again. */
const idle = new Map<string, ChildProcess[]>();

/** Lets the idle workers go; the process could not end with them. */
export function endWorkers(): void {
  for (const child of [...idle.values()].flat()) child.disconnect();
  idle.clear();
}

/** One engine of this package. */
export class EngineContestant implements Contestant {
  readonly name: string;
  readonly #operation: string;
  readonly #parameters: Parameters;
  #child: ChildProcess | undefined;

  constructor(operation: string, parameters: Parameters, label?: string) {
    this.name = label ?? parameters.engine;
    this.#operation = operation;
    this.#parameters = parameters;
  }

  async start(): Promise<void> {
    await mkdir(this.#parameters.scratch, { recursive: true });
    this.#child =
      idle.get(this.#parameters.engine)?.pop() ??
      fork(new URL('./worker.ts', import.meta.url), { execArgv: [...process.execArgv, '--expose-gc'] });
    await this.#ask({ kind: 'setup', operation: this.#operation, parameters: this.#parameters });
  }

  async run(): Promise<Sample> {
    await mkdir(this.#parameters.scratch, { recursive: true }); // a new file system has no directories
    return (await this.#ask({ kind: 'run' })) as Sample;
  }

  async stop(): Promise<void> {
    if (this.#child?.connected === true) {
      await this.#ask({ kind: 'teardown' });
      const { engine } = this.#parameters;
      idle.set(engine, [...(idle.get(engine) ?? []), this.#child]);
    }
    this.#child = undefined;
  }

  #ask(message: object): Promise<unknown> {
    const child = this.#child;
    if (child === undefined) return Promise.reject(new Error(`${this.name} is not running`));
    return new Promise((resolve, reject) => {
      const onExit = (code: number | null): void => reject(new Error(`the worker of ${this.name} ended with ${code}`));
      child.once('exit', onExit);
      child.once('message', (reply: { value?: unknown; error?: string }) => {
        child.off('exit', onExit);
        if (reply.error === undefined) resolve(reply.value);
        else reject(new Error(`${this.name}: ${reply.error}`));
      });
      child.send(message);
    });
  }
}

/** A command, each run in a fresh directory that is made outside of the measured time and goes with its file system. */
export class CommandContestant implements Contestant {
  readonly name: string;
  readonly #words: (directory: string) => readonly string[];
  readonly #scratch: string;
  readonly #bytes: () => Promise<number>;
  readonly #prepare: (directory: string) => Promise<unknown>;
  #n = 0;

  constructor(
    name: string,
    scratch: string,
    bytes: () => Promise<number>,
    words: (directory: string) => readonly string[],
    /** Fills the directory before the measured time. */
    prepare: (directory: string) => Promise<unknown> = () => Promise.resolve(),
  ) {
    this.name = name;
    this.#prepare = prepare;
    this.#words = words;
    this.#scratch = scratch;
    this.#bytes = bytes;
  }

  start(): Promise<void> {
    return Promise.resolve();
  }

  async run(): Promise<Sample> {
    const directory = `${this.#scratch}-${this.#n++}`;
    await mkdir(directory, { recursive: true });
    await this.#prepare(directory);
    return { ...(await measureCommand(this.#words(directory), { cwd: directory })), bytes: await this.#bytes() };
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }
}

/** Absolute path of a command of the system, where it is installed. */
export function findCommand(name: string): string | undefined {
  return (process.env['PATH'] ?? '')
    .split(':')
    .concat('/usr/sbin', '/sbin')
    .map((folder) => `${folder}/${name}`)
    .find((path) => existsSync(path));
}
