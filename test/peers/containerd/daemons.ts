/**
 * containerd on scratch directories with our plugin on a socket beside it, each a process of its own that can be killed and
 * started again.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tempDir } from '../../support/temp.js';
import { command, Daemon, type Hooks } from '../support.js';
import { programsOf, type Programs, type Release } from './releases.js';

export const SNAPSHOTTER = 'layerstore';
export const NAMESPACE = 'peers';
export const MAIN = join(import.meta.dirname, '../../../dist/cli/main.js');

export interface Snapshot {
  readonly name: string;
  readonly parent: string;
  readonly kind: string;
}

export interface PairOptions {
  /** The store's root; default a new directory. */
  readonly root?: string;
  /** More words of `layerstore containerd`. */
  readonly words?: readonly string[];
  /** containerd serves the kubelet, too. */
  readonly cri?: boolean;
}

/** containerd and our plugin. */
export class Pair {
  readonly version: string;
  /** Of the store. */
  readonly root: string;
  /** Of the plugin. */
  readonly socket: string;
  /** containerd's. */
  readonly address: string;
  readonly #programs: Programs;
  readonly #scratch: string;
  readonly #more: readonly string[];
  #containerd: Daemon | undefined;
  #plugin: Daemon | undefined;

  private constructor(programs: Programs, scratch: string, options: PairOptions) {
    this.#programs = programs;
    this.#scratch = scratch;
    this.version = programs.version;
    this.root = options.root ?? join(scratch, 'store');
    this.socket = join(scratch, 'p.sock');
    this.address = join(scratch, 'c.sock');
    this.#more = options.words ?? [];
    writeFileSync(this.#config, configuration(this, scratch, options.cri === true));
  }

  /** Both run when it resolves. */
  static async start(t: Hooks, release: Release, options: PairOptions = {}): Promise<Pair> {
    const pair = new Pair(programsOf(release), tempDir(t, 'pair'), options);
    t.after(() => pair.stop());
    await pair.startPlugin();
    await pair.startContainerd();
    return pair;
  }

  /** containerd's root. */
  get content(): string {
    return join(this.#scratch, 'root');
  }

  get plugin(): Daemon {
    if (this.#plugin === undefined) throw new Error('the plugin does not run');
    return this.#plugin;
  }

  get containerd(): Daemon {
    if (this.#containerd === undefined) throw new Error('containerd does not run');
    return this.#containerd;
  }

  get #config(): string {
    return join(this.#scratch, 'config.toml');
  }

  async startPlugin(): Promise<void> {
    const words = [
      '--root',
      this.root,
      'containerd',
      '--address',
      this.socket,
      '--content',
      this.content,
      ...this.#more,
    ];
    const plugin = new Daemon(process.execPath, [MAIN, ...words], { env: { NODE_OPTIONS: '' } });
    this.#plugin = plugin;
    await plugin.ready(async () => {
      if (!plugin.said.includes('serving')) throw new Error('not yet');
    });
  }

  async startContainerd(): Promise<void> {
    this.#containerd = new Daemon(
      join(this.#programs.bin, 'containerd'),
      ['--config', this.#config, '--log-level', 'warn'],
      {
        env: { PATH: `${this.#programs.bin}:${process.env['PATH'] ?? ''}` },
      },
    );
    await this.#containerd.ready(() => this.ctr('version'));
  }

  async stop(): Promise<void> {
    await this.#containerd?.stop();
    await this.#plugin?.stop();
  }

  async ctr(...args: readonly string[]): Promise<string> {
    return this.ctrIn(NAMESPACE, ...args);
  }

  async ctrIn(namespace: string, ...args: readonly string[]): Promise<string> {
    return (await command(join(this.#programs.bin, 'ctr'), this.#words(namespace, args))).trim();
  }

  /** Standard output as it is, in a file. */
  ctrTo(path: string, ...args: readonly string[]): void {
    const file = openSync(path, 'w');
    try {
      execFileSync(join(this.#programs.bin, 'ctr'), this.#words(NAMESPACE, args), { stdio: ['ignore', file, 'pipe'] });
    } finally {
      closeSync(file);
    }
  }

  #words(namespace: string, args: readonly string[]): string[] {
    return ['--address', this.address, '--namespace', namespace, ...args];
  }

  /** containerd's own list of our snapshots, in order of name. */
  async snapshots(namespace = NAMESPACE): Promise<Snapshot[]> {
    const said = await this.ctrIn(namespace, 'snapshots', '--snapshotter', SNAPSHOTTER, 'ls');
    const lines = said.split('\n').slice(1);
    const rows = lines.map((line) => line.trim().split(/\s+/));
    return rows
      .map((row) => ({ name: row[0] ?? '', parent: row.length === 3 ? (row[1] ?? '') : '', kind: row.at(-1) ?? '' }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Removes every image, what clients that were killed had leased, and waits for containerd's garbage collection. */
  async prune(): Promise<void> {
    const leases = (await this.ctr('leases', 'ls', '-q')).split('\n').filter((name) => name !== '');
    for (const lease of leases) await this.ctr('leases', 'rm', '--sync', lease);
    const names = (await this.ctr('images', 'ls', '-q')).split('\n').filter((name) => name !== '');
    // `--sync` waits for a collection, also where there is only one image.
    if (names.length > 0) await this.ctr('images', 'rm', '--sync', ...names);
  }
}

/** Lines that each release's configuration has; see docs/guides/under-containerd.md. */
function configuration(pair: Pair, scratch: string, cri: boolean): string {
  const current = !pair.version.startsWith('1.');
  const differ = pair.version !== '1.6';
  const cni = join(scratch, 'cni');
  mkdirSync(cni);
  const lines = [
    `version = ${current ? 3 : 2}`,
    `root = "${join(scratch, 'root')}"`,
    `state = "${join(scratch, 'state')}"`,
    ...(cri
      ? []
      : [
          `disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]`,
        ]),
    '[grpc]',
    `address = "${pair.address}"`,
    `[proxy_plugins.${SNAPSHOTTER}]`,
    'type = "snapshot"',
    `address = "${pair.socket}"`,
  ];
  if (differ) {
    lines.push(
      `[proxy_plugins.${SNAPSHOTTER}-diff]`,
      'type = "diff"',
      `address = "${pair.socket}"`,
      '[plugins."io.containerd.service.v1.diff-service"]',
      `default = ["${SNAPSHOTTER}-diff", "walking"]`,
    );
  }
  if (current) {
    lines.push(
      '[[plugins."io.containerd.transfer.v1.local".unpack_config]]',
      `platform = "linux/${process.arch === 'arm64' ? 'arm64' : 'amd64'}"`,
      `snapshotter = "${SNAPSHOTTER}"`,
      `differ = "${SNAPSHOTTER}-diff"`,
    );
  }
  if (cri && current) {
    lines.push(
      '[plugins."io.containerd.cri.v1.images"]',
      `snapshotter = "${SNAPSHOTTER}"`,
      '[plugins."io.containerd.cri.v1.runtime".cni]',
      `conf_dir = "${cni}"`,
    );
  } else if (cri) {
    lines.push(
      '[plugins."io.containerd.grpc.v1.cri".containerd]',
      `snapshotter = "${SNAPSHOTTER}"`,
      '[plugins."io.containerd.grpc.v1.cri".cni]',
      `conf_dir = "${cni}"`,
    );
  }
  return `${lines.join('\n')}\n`;
}
