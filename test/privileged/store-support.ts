/** Real stores: each engine with each driver of the package, and real tars. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync, symlinkSync, linkSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import type { TestContext } from 'node:test';
import type { DiffID } from '../../src/digest.js';
import { openStore } from '../../src/store/open.js';
import type { Store, StoreOptions } from '../../src/store/types.js';
import { mountsBelow } from '../../src/testing/suite-directory.js';
import { tempDir } from '../support/temp.js';

export const COMBINATIONS = (['native', 'js'] as const).flatMap((engine) =>
  (['overlay2', 'vfs'] as const).map((driver) => ({ engine, driver, label: `${engine}, ${driver}` })),
);

export interface Place {
  root: string;
  /** Three tars that build on each other: a tree, changes to it, deletions from it. */
  tars: { path: string; bytes: Buffer; diffID: DiffID }[];
  lines: { level: string; message: string; fields: object }[];
  open(options?: Partial<StoreOptions>): Promise<Store>;
}

export function prepare(t: TestContext, engine: 'native' | 'js', driver: 'overlay2' | 'vfs'): Place {
  const directory = tempDir(t, 'store');
  const root = join(directory, 'root');
  const lines: Place['lines'] = [];
  const log = (level: string) => (fields: object, message: string) => void lines.push({ level, message, fields });
  const logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };
  const opened: Store[] = [];
  t.after(async () => {
    for (const store of opened) await store.close();
  });
  return {
    root,
    tars: makeTars(directory),
    lines,
    async open(options = {}) {
      const store = await openStore({ root, engine, driver, logger, ...options });
      opened.push(store);
      return store;
    },
  };
}

function makeTars(directory: string): Place['tars'] {
  const trees: ((path: string) => void)[] = [
    (path) => {
      mkdirSync(join(path, 'etc'));
      mkdirSync(join(path, 'data'));
      writeFileSync(join(path, 'etc', 'passwd'), 'root:x:0:0\n', { mode: 0o644 });
      writeFileSync(join(path, 'data', 'big'), Buffer.alloc(300_000, 7));
      linkSync(join(path, 'data', 'big'), join(path, 'data', 'same'));
      symlinkSync('../etc/passwd', join(path, 'data', 'link'));
    },
    (path) => {
      mkdirSync(join(path, 'etc'));
      writeFileSync(join(path, 'etc', 'passwd'), 'root:x:0:0\nuser:x:1:1\n', { mode: 0o600 });
      writeFileSync(join(path, 'new'), 'new\n');
    },
    (path) => {
      mkdirSync(join(path, 'data'));
      writeFileSync(join(path, 'data', '.wh.link'), '');
    },
  ];
  return trees.map((make, index) => {
    const tree = join(directory, `tree-${index}`);
    mkdirSync(tree);
    make(tree);
    const path = join(directory, `${index}.tar`);
    execFileSync('tar', ['--sort=name', '--mtime=@1700000000', '-cf', path, '-C', tree, '.']);
    const bytes = readFileSync(path);
    return { path, bytes, diffID: digestOf(bytes) };
  });
}

export function digestOf(bytes: Uint8Array): DiffID {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as DiffID;
}

export async function bytesOf(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** What a store leaves behind: driver directories, records, intents, mounts. */
export function remains(place: Place, driver: string): Record<string, string[]> {
  const home = join(place.root, driver, ...(driver === 'vfs' ? ['dir'] : []));
  const records = join(place.root, 'image', driver, 'layerdb');
  const list = (path: string): string[] => readdirSync(path);
  return {
    directories: list(home).filter((name) => name !== 'l' && name !== 'backingFsBlockDev'),
    links: driver === 'overlay2' ? list(join(home, 'l')) : [],
    layers: list(join(records, 'sha256')),
    rwLayers: list(join(records, 'mounts')),
    temporary: list(join(records, 'tmp')),
    intents: list(join(place.root, 'layerstore', 'intents')),
    mounts: mountsBelow(place.root),
  };
}

export const NOTHING = { directories: [], links: [], layers: [], rwLayers: [], temporary: [], intents: [], mounts: [] };
