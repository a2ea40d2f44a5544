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

/** `layerstore containerd` on a store; it serves when it resolves. */
export async function startPlugin(root: string, socket: string, words: readonly string[] = []): Promise<Daemon> {
  const all = ['--root', root, 'containerd', '--address', socket, ...words];
  const plugin = new Daemon(process.execPath, [MAIN, ...all], { env: { NODE_OPTIONS: '' } });
  await plugin.ready(async () => {
    if (!plugin.said.includes('serving')) throw new Error('not yet');
  });
  return plugin;
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
    this.#plugin = await startPlugin(this.root, this.socket, ['--content', this.content, ...this.#more]);
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
    // By columns: the key of an extraction has a space in it.
    const [head = '', ...rows] = said.split('\n');
    const [parent, kind] = [head.indexOf('PARENT'), head.indexOf('KIND')];
    return rows
      .map((row) => ({
        name: row.slice(0, parent).trim(),
        parent: row.slice(parent, kind).trim(),
        kind: row.slice(kind).trim(),
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** containerd tries a plugin that was away again after some seconds; a list without snapshots does not ask the plugin. */
  async reconnected(): Promise<void> {
    const snapshots = (...words: string[]): Promise<string> =>
      this.ctr('snapshots', '--snapshotter', SNAPSHOTTER, ...words);
    await this.containerd.ready(() => snapshots('prepare', 'probe'));
    // Nothing keeps it, so a collection may have been faster.
    await snapshots('rm', 'probe').catch((error: unknown) => {
      if (!String(error).includes('does not exist')) throw error;
    });
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
      // For comparison.
      '[[plugins."io.containerd.transfer.v1.local".unpack_config]]',
      `platform = "linux/${process.arch === 'arm64' ? 'arm64' : 'amd64'}"`,
      'snapshotter = "overlayfs"',
      'differ = "walking"',
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
