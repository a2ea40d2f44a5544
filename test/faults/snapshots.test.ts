/** Snapshots of containerd: a process that is killed, and a machine that loses power, at each step of each call. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { Refusal } from '../../src/containerd/refusal.js';
import { Snapshots } from '../../src/containerd/snapshots.js';
import type { SnapshotKind, SnapshotRecord } from '../../src/containerd/records.js';
import { type ChainID, createChainID, type Digest } from '../../src/digest.js';
import { openStore } from '../../src/store/open.js';
import type { Store } from '../../src/store/types.js';
import { Disks, memory } from './support/disks.js';
import { instrument } from './support/instrument.js';
import { sampleTar } from './support/tars.js';

/** What is promised of a snapshot. */
interface Fact {
  kind: SnapshotKind;
  layer?: ChainID;
  /** Content of the file `file` in its own tree. */
  file?: string;
  label?: string;
}

/** One call: what it may change meanwhile, and what is so when it has resolved. */
interface Step {
  name: string;
  readonly run: (snapshots: Snapshots) => Promise<void>;
  then: Record<string, Fact | null>;
}

const REF = 'containerd.io/snapshot.ref';
const tar = (index: number): { bytes: Buffer; diffID: Digest } => sampleTar(55, index);
const chain = (...indexes: number[]): ChainID =>
  createChainID(indexes.map((index) => sampleTar(55, index).diffID)) as ChainID;
const nameOf = (namespace: string, chainID: ChainID): string => `${namespace}/1/${chainID}`;

/** The directory that writes to an active snapshot end up in. */
async function written(snapshots: Snapshots, key: string): Promise<string> {
  const [mount] = await snapshots.mounts(key);
  assert.ok(mount?.writes !== undefined);
  return mount.writes;
}

function unpack(key: string, parent: string, index: number, chainID: ChainID): Step[] {
  const { bytes } = tar(index);
  const digest: Digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  const blob = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: bytes.length };
  const apply = { tar: Readable.from([bytes]), blob, signal: undefined, onProgress: undefined };
  const name = nameOf('lab', chainID);
  return [
    prepare('active', key, parent),
    { name: `Apply ${key}`, run: async (s) => void (await s.apply(key, apply)), then: { [key]: { kind: 'active' } } },
    {
      name: `Commit ${key}`,
      run: (s) => s.commit(name, key, { [REF]: chainID }, ''),
      then: { [key]: null, [name]: { kind: 'committed', layer: chainID } },
    },
  ];
}

function prepare(kind: 'active' | 'view', key: string, parent: string): Step {
  return {
    name: `${kind} ${key}`,
    run: async (s) => void (await s.prepare(kind, key, parent, {})),
    then: { [key]: { kind } },
  };
}

function remove(key: string): Step {
  return { name: `Remove ${key}`, run: (s) => s.remove(key), then: { [key]: null } };
}

/** Every call, in an order that leads through each way that it has. */
function script(): Step[] {
  const base = nameOf('lab', chain(0));
  const top = nameOf('lab', chain(0, 1));
  const other = nameOf('other', chain(0));
  return [
    ...unpack('extract base', '', 0, chain(0)),
    ...unpack('extract top', base, 1, chain(0, 1)),
    prepare('active', 'box', top),
    prepare('view', 'view', top),
    prepare('active', 'plain', base),
    {
      name: 'Commit plain',
      run: async (s) => {
        writeFileSync(join(await written(s, 'plain'), 'file'), 'what was promised');
        await s.commit('committed', 'plain', {}, '');
      },
      then: { plain: null, committed: { kind: 'committed', file: 'what was promised' } },
    },
    prepare('active', 'moved', ''),
    {
      name: 'Commit moved',
      run: async (s) => {
        writeFileSync(join(await written(s, 'moved'), 'file'), 'moved');
        await s.commit('rebased', 'moved', {}, 'committed');
      },
      then: { moved: null, rebased: { kind: 'committed', file: 'moved' } },
    },
    {
      name: 'Update',
      run: async (s) => void (await s.update('committed', { label: 'new' }, [])),
      then: { committed: { kind: 'committed', file: 'what was promised', label: 'new' } },
    },
    remove('rebased'),
    remove('committed'),
    remove('view'),
    remove('box'),
    remove(top),
    {
      name: 'Prepare of what is here',
      run: async (s) => {
        // On another parent, by name, so that it is no snapshot that is there.
        await s.update(base, {}, []);
        await assert.rejects(
          s.prepare('active', 'other/1/extract again', '', { [REF]: chain(0) }),
          (error) => error instanceof Refusal && error.status === 'ALREADY_EXISTS',
        );
      },
      then: { [other]: { kind: 'committed', layer: chain(0) } },
    },
    remove(base),
    remove(other),
  ];
}

/** What is known at a moment: for each name what it must be, or several things that it may be. */
type Known = Map<string, (Fact | null)[]>;

interface Moment {
  place: string;
  where: string;
  known: Known;
}

/** Runs the script; `freeze` is called at each step with what is promised then. */
async function runScript(root: string, freeze: (where: string, known: Known) => void): Promise<void> {
  const known: Known = new Map();
  const snapshot = (): Known => new Map([...known].map(([name, facts]) => [name, [...facts]]));
  const store = await openStore({ root, engine: 'native', driver: 'overlay2' });
  const snapshots = await Snapshots.open({ store, reuseLayers: true });
  for (const { name, run, then } of script()) {
    for (const [key, fact] of Object.entries(then)) known.set(key, [...(known.get(key) ?? [null]), fact]);
    let step = 0;
    const restore = instrument(root, {
      before: (what) => freeze(`${name}, step ${(step += 1)}: ${what}`, snapshot()),
    });
    try {
      await run(snapshots);
    } finally {
      restore();
    }
    for (const [key, fact] of Object.entries(then)) known.set(key, [fact]);
    freeze(`${name}, done`, snapshot());
  }
  await snapshots.close();
  await store.close();
}

/** Opens what was left; gives what is not as it should be. */
async function inspect(root: string, known: Known): Promise<string[]> {
  const losses: string[] = [];
  let store: Store;
  try {
    store = await openStore({ root, engine: 'native', driver: 'overlay2' });
  } catch (error) {
    return [`the store does not open: ${String(error)}`];
  }
  try {
    const snapshots = await Snapshots.open({ store, reuseLayers: true });
    const records = new Map(snapshots.list([]).map((record) => [record.name, record]));
    for (const [name, facts] of known) {
      const wrong = facts.map((fact) => differs(root, records.get(name), fact));
      if (wrong.every((why) => why !== undefined)) losses.push(`${name}: ${wrong.join('; or ')}`);
    }
    for (const name of records.keys()) if (!known.has(name)) losses.push(`${name} is there, and nobody made it`);
    losses.push(...(await strays(root, store, [...records.values()])));
    // It is not only listed: the chain can be stacked upon.
    for (const { name, kind } of records.values()) {
      if (kind !== 'committed') continue;
      await snapshots.prepare('active', 'try', name, {});
      await snapshots.remove('try');
    }
    await snapshots.close();
    const { ok, layers } = await store.verify();
    if (!ok) losses.push(`damaged: ${JSON.stringify(layers)}`);
  } catch (error) {
    losses.push(`it cannot be used: ${String(error)}`);
  } finally {
    await store.close();
  }
  return losses;
}

function differs(root: string, record: SnapshotRecord | undefined, fact: Fact | null): string | undefined {
  if (fact === null) return record === undefined ? undefined : 'is there';
  if (record === undefined) return 'is not there';
  if (record.kind !== fact.kind) return `is ${record.kind}`;
  if (record.layer !== fact.layer) return `is the layer ${record.layer ?? 'none'}`;
  if (record.labels['label'] !== fact.label) return `has the label ${record.labels['label'] ?? ''}`;
  if (fact.file === undefined) return undefined;
  const path = join(root, 'overlay2', record.tree ?? '', 'diff', 'file');
  return existsSync(path) && readFileSync(path, 'utf8') === fact.file ? undefined : 'lacks its file';
}

/** What lies there and belongs to nothing. */
async function strays(root: string, store: Store, records: readonly SnapshotRecord[]): Promise<string[]> {
  const { items, foreign } = await store.cleanup();
  const left = [...items.filter(({ kind }) => kind !== 'pending'), ...foreign].map(({ what }) => what);
  const wanted = records.filter(({ layer }) => layer !== undefined).map(({ name }) => `containerd:${name}`);
  const held = store.references().map(({ name }) => name);
  const applied = readdirSync(join(root, 'layerstore', 'containerd', 'applied'));
  const pending = records.filter((record) => record.applied !== undefined).map(({ tree }) => `${tree}.tar-split.gz`);
  return [
    ...left.map((what) => `left over: ${what}`),
    ...held.filter((name) => !wanted.includes(name)).map((name) => `a reference of nothing: ${name}`),
    ...wanted.filter((name) => !held.includes(name)).map((name) => `no reference: ${name}`),
    ...applied.filter((name) => !pending.includes(name)).map((name) => `left over: ${name}`),
    ...pending.filter((name) => !applied.includes(name)).map((name) => `missing: ${name}`),
  ];
}

function assertNone(moments: readonly Moment[], losses: readonly string[]): void {
  assert.ok(moments.length > 100, `${moments.length} moments`);
  assert.deepEqual(losses, [], `${losses.length} losses in ${moments.length} moments`);
}

test('snapshots: killed before each step', async (t) => {
  const directory = memory(t, 'snapshots');
  const root = join(directory, 'root');
  const moments: Moment[] = [];
  await runScript(root, (where, known) => {
    const place = join(directory, `moment-${moments.length}`);
    const { status, stderr } = spawnSync('cp', ['-a', '-x', '--', root, place], { encoding: 'utf8' });
    // What background threads unlink meanwhile may be missing: that is a moment, too.
    const complaints = stderr.split('\n').filter((line) => line !== '' && !line.includes('/.removing-'));
    if (status !== 0 && complaints.length > 0) throw new Error(complaints.join('\n'));
    moments.push({ place, where, known });
  });
  const losses: string[] = [];
  for (const { place, where, known } of moments) {
    losses.push(...(await inspect(place, known)).map((loss) => `${where}: ${loss}`));
    rmSync(place, { recursive: true, force: true });
  }
  t.diagnostic(`${moments.length} moments, ${losses.length} losses`);
  assertNone(moments, losses);
});

for (const fileSystem of ['ext4', 'xfs'] as const) {
  test(`snapshots: power lost before each step, on ${fileSystem}`, async (t) => {
    const disks = Disks.cloning(t);
    const image = disks.image(fileSystem);
    const place = disks.mount(image, fileSystem);
    mkdirSync(join(place, 'root'));
    execFileSync('sync', ['-f', place]);
    const moments: Moment[] = [];
    let last = '';
    await runScript(join(place, 'root'), (where, known) => {
      // Nothing was written to the disk and nothing new promised: the moment before was this one.
      const state = `${statSync(image, { bigint: true }).mtimeNs} ${JSON.stringify([...known])}`;
      if (state === last) return;
      last = state;
      moments.push({ place: disks.clone(image), where, known });
    });
    disks.unmount(place);
    const losses: string[] = [];
    for (const moment of moments) {
      const mounted = disks.mount(moment.place, fileSystem);
      losses.push(...(await inspect(join(mounted, 'root'), moment.known)).map((loss) => `${moment.where}: ${loss}`));
      disks.unmount(mounted);
      disks.remove(moment.place);
    }
    t.diagnostic(`${fileSystem}: ${moments.length} moments, ${losses.length} losses`);
    assert.ok(moments.length > 30, `${moments.length} moments`);
    assert.deepEqual(losses, [], `${losses.length} losses in ${moments.length} moments`);
  });
}
