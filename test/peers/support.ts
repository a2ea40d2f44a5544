/**
 * Docker and friends for the tests: daemons on scratch directories that always go away, and an image to hand around. A
 * peer that is not installed fails the test with a sentence; nothing is installed here.
 */
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { tempDir } from '../support/temp.js';
import { entries, oci, sampleConfig, tar } from '../unit/image/archives.js';

const run = promisify(execFile);

export type Hooks = Pick<TestContext, 'after'>;

/** Hooks of a test that run last first: what stands on a directory ends before that is removed. Node runs them first first. */
export function inReverse(t: Hooks): Hooks {
  const steps: (() => unknown)[] = [];
  t.after(async () => {
    for (let step = steps.pop(); step !== undefined; step = steps.pop()) await step();
  });
  return { after: (step) => void steps.push(step as () => unknown) };
}

/** Fails unless each of the programs is there; `package` names are Debian's. */
export function requirePeers(...names: readonly string[]): void {
  const packages: Readonly<Record<string, string>> = {
    docker: 'docker.io',
    dockerd: 'docker.io',
    ctr: 'containerd',
    go: 'golang-go',
  };
  const missing = names.filter(
    (name) => !process.env['PATH']?.split(delimiter).some((directory) => isProgram(join(directory, name))),
  );
  if (missing.length > 0) {
    throw new Error(
      `this test compares with ${missing.join(', ')}, which is not installed: apt-get install ${missing.map((name) => packages[name] ?? name).join(' ')}`,
    );
  }
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    // Not in this directory of PATH.
    return false;
  }
}

/** Standard output of a command; its standard error is in the error it fails with. */
export async function command(
  program: string,
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  const { stdout } = await run(program, args, {
    maxBuffer: 64 * 1024 * 1024,
    timeout: 900_000,
    env: { ...process.env, ...options.env },
  });
  return stdout;
}

/** A server process; `stop` is gentle first. What it said is in the errors. */
export class Daemon {
  readonly #process: ChildProcess;
  readonly #exit: Promise<number | null>;
  #said = '';

  constructor(program: string, args: readonly string[], options: { env?: NodeJS.ProcessEnv } = {}) {
    const env = { ...process.env, ...options.env };
    this.#process = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.on('data', (chunk: Buffer) => (this.#said = `${this.#said}${chunk.toString()}`.slice(-20_000)));
    }
    this.#exit = new Promise((resolve, reject) => {
      this.#process.once('exit', resolve);
      this.#process.once('error', reject);
    });
  }

  get said(): string {
    return this.#said;
  }

  /** The exit code of a daemon that is expected to give up by itself. */
  async exited(): Promise<number | null> {
    return this.#exit;
  }

  async ready(probe: () => Promise<unknown>): Promise<void> {
    let failure: unknown;
    for (let attempt = 0; attempt < 300; attempt++) {
      if (this.#process.exitCode !== null)
        throw new Error(`${this.#process.spawnfile} ended with ${this.#process.exitCode}:\n${this.#said}`);
      try {
        await probe();
        return;
      } catch (error) {
        failure = error;
        await sleep(200);
      }
    }
    throw new Error(`${this.#process.spawnfile} does not answer: ${String(failure)}\n${this.#said}`);
  }

  /** As a crash ends it. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#exit;
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    this.#process.kill('SIGTERM');
    const late = setTimeout(() => this.#process.kill('SIGKILL'), 30_000);
    await this.#exit;
    clearTimeout(late);
  }
}

/** A dockerd on a data root of the caller's, and the client that speaks to it. */
export class Docker {
  readonly #socket: string;
  readonly daemon: Daemon;

  private constructor(daemon: Daemon, socket: string) {
    this.daemon = daemon;
    this.#socket = socket;
  }

  /** @param scratch for its run-time files; sockets have short paths, so it must too */
  static spawn(t: Hooks, root: string, scratch: string): Docker {
    requirePeers('docker', 'dockerd');
    const socket = join(scratch, 'docker.sock');
    const daemon = new Daemon('dockerd', [
      ...[
        '--data-root',
        root,
        '--exec-root',
        join(scratch, 'exec'),
        '-H',
        `unix://${socket}`,
        '-p',
        join(scratch, 'docker.pid'),
      ],
      ...['--iptables=false', '--bridge=none', '--storage-driver', 'overlay2', '--log-level', 'warn'],
    ]);
    t.after(() => daemon.stop());
    return new Docker(daemon, socket);
  }

  static async start(t: Hooks, root: string, scratch: string): Promise<Docker> {
    const docker = Docker.spawn(t, root, scratch);
    await docker.daemon.ready(() => docker.run('version'));
    return docker;
  }

  async run(...args: readonly string[]): Promise<string> {
    return (await command('docker', ['-H', `unix://${this.#socket}`, ...args])).trim();
  }

  async stop(): Promise<void> {
    await this.daemon.stop();
  }
}

/** A podman with a store of its own. */
export function podman(t: Hooks): (...args: readonly string[]) => Promise<string> {
  requirePeers('podman');
  const scratch = tempDir(t, 'podman');
  const where = [
    '--root',
    join(scratch, 'root'),
    '--runroot',
    join(scratch, 'run'),
    '--tmpdir',
    join(scratch, 'tmp'),
    '--storage-driver',
    'overlay',
  ];
  return async (...args) => (await command('podman', [...where, ...args])).trim();
}

/** A containerd with a root of its own, and the client that speaks to it. */
export async function containerd(t: Hooks): Promise<(...args: readonly string[]) => Promise<string>> {
  requirePeers('containerd', 'ctr');
  const scratch = tempDir(t, 'ctr');
  const socket = join(scratch, 's');
  const config = join(scratch, 'config.toml');
  writeFileSync(config, 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n');
  const daemon = new Daemon('containerd', [
    '--config',
    config,
    '--root',
    join(scratch, 'root'),
    '--state',
    join(scratch, 'state'),
    '--address',
    socket,
    '--log-level',
    'warn',
  ]);
  t.after(() => daemon.stop());
  const ctr = async (...args: readonly string[]): Promise<string> =>
    (await command('ctr', ['--address', socket, ...args])).trim();
  await daemon.ready(() => ctr('version'));
  return ctr;
}

/** Plain tars of three layers, base first, with all that layers can hold, and a static program `/bin/hello`. */
export function peerLayers(t: Hooks): Buffer[] {
  const scratch = tempDir(t, 'peer-layers');
  const layer = (name: string, fill: (directory: string) => void): Buffer => {
    const directory = join(scratch, name);
    mkdirSync(directory);
    fill(directory);
    execFileSync('tar', [
      '-C',
      directory,
      '--sort=name',
      '--xattrs',
      '--xattrs-include=*',
      '--format=pax',
      '-cf',
      `${directory}.tar`,
      '.',
    ]);
    return readFileSync(`${directory}.tar`);
  };
  const sh = (directory: string, script: string): void => void execFileSync('sh', ['-euc', script], { cwd: directory });
  return [
    layer('base', (directory) => {
      writeFileSync(
        join(scratch, 'hello.c'),
        '#include <stdio.h>\nint main(int n, char **v) { FILE *f = fopen(n > 1 ? v[1] : "/made", "w"); return f && fputs("made inside\\n", f) >= 0 && puts("hello") >= 0 ? 0 : 1; }\n',
      );
      sh(
        directory,
        `mkdir -p bin etc dev var/cache/deep usr/share tmp; chmod 1777 tmp
        gcc -static -Os -o bin/hello ../hello.c; cp bin/hello bin/setuid; chmod 4755 bin/setuid; chown 1:2 etc
        echo root:x:0:0::/:/bin/hello > etc/passwd; echo one > etc/one; ln etc/one etc/one-again; ln -s ../bin/hello usr/hello
        mknod dev/null c 1 3; mkfifo dev/fifo; echo cached > var/cache/deep/file; echo gone > var/gone; mkdir var/opaque; echo old > var/opaque/old
        head -c 300000 /dev/zero > usr/share/zeros; printf name > "$(printf 'etc/n\\303\\244me')"; touch -d '2001-02-03 04:05:06.789' etc/one`,
      );
    }),
    layer('packages', (directory) => {
      sh(
        directory,
        `mkdir -p etc var/opaque usr/lib var/cache/deep; chown 1:2 etc; echo two > etc/two; : > var/.wh.gone; : > var/opaque/.wh..wh..opq; echo new > var/opaque/new
        ln -s /etc/two usr/lib/link; i=0; while [ $i -lt 300 ]; do echo $i > usr/lib/file$i; i=$((i+1)); done
        setfattr -n user.note -v kept etc/two; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 usr/lib/file1`,
      );
    }),
    layer('deletions', (directory) => {
      sh(
        directory,
        `mkdir -p etc usr/lib var/cache; chown 1:2 etc; : > etc/.wh.one; : > usr/lib/.wh.file7; : > var/cache/.wh.deep; echo three > etc/two`,
      );
    }),
  ];
}

/** A real image, where LAYERSTORE_CORPUS says that there are any. */
export function corpusImage(): string | undefined {
  const corpus = process.env['LAYERSTORE_CORPUS'];
  const path = corpus === undefined ? '' : join(corpus, 'image.docker.tar');
  return existsSync(path) ? path : undefined;
}

/** An OCI archive of {@link peerLayers}, called `docker.io/library/peer:1`. */
export async function peerImage(t: Hooks): Promise<string> {
  const layers = peerLayers(t);
  const config = sampleConfig(layers, {
    config: { Cmd: ['/bin/hello'] },
    created: '2024-01-01T00:00:00Z',
    history: layers.map(() => ({ created: '2024-01-01T00:00:00Z', created_by: 'test' })),
  });
  const path = join(tempDir(t, 'peer-image'), 'image.tar');
  writeFileSync(path, await tar(entries(oci(layers, { gzip: true, name: 'docker.io/library/peer:1', config }).files)));
  return path;
}
