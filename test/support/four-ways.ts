/**
 * One archive unpacked four ways: by both engines, as overlay2 keeps a layer (its own directory) and as vfs does (in a
 * directory that holds the parent's tree). All four must take it or refuse it with one code; the trees, the exported bytes,
 * the views of the stack and what `verifyTree` finds must be the same.
 */
import assert from 'node:assert/strict';
import { lstatSync, mkdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import type { Engine, IngestResult, UnpackLimits, WhiteoutForm } from '../../src/engine/engine.js';
import { openEngine } from '../../src/engine/select.js';
import { LayerStoreError } from '../../src/errors.js';
import { directoryGetter } from '../../src/testing/engine-suite-tars.js';
import { buildTar, type TarEntry } from '../../src/testing/tar-builder.js';
import { assertSameTree, diffTrees, snapshotTree, type TreeSnapshot } from '../../src/testing/tree-snapshot.js';
import { readXattrs } from '../../src/testing/xattrs.js';

export interface Archive {
  /** The layer below. Absent: an empty one. */
  parent?: readonly TarEntry[];
  layer: readonly TarEntry[] | Uint8Array;
  limits?: UnpackLimits;
}

/**
 * What may differ by design (docs/security.md). `content`: what the two forms show, beyond the following; `directories`: owner
 * and mode of directories that only a lower layer names; `listing`: overlayfs lists a name and says ENOENT of it;
 * `times`: the JavaScript engine cannot set them as fine.
 */
export type Difference = 'content' | 'directories' | 'listing' | 'times';

export interface Agreement {
  /** The code with which all four refused it; absent where all four took it. */
  code?: string;
  result?: IngestResult;
  differences: Map<Difference, string>;
}

const ENGINES = ['native', 'js'] as const;
const FORMS = ['overlay', 'plain'] as const satisfies readonly WhiteoutForm[];

interface Outcome {
  engine: Engine;
  form: (typeof FORMS)[number];
  directory: string;
  tree: string;
  record: string;
  refusal?: LayerStoreError;
  result?: IngestResult;
}

export class FourWays {
  readonly #engines: readonly Engine[];

  private constructor(engines: readonly Engine[]) {
    this.#engines = engines;
  }

  static async open(): Promise<FourWays> {
    return new FourWays(await Promise.all(ENGINES.map((engine) => openEngine({ engine }))));
  }

  /** Throws at the first difference that {@link Agreement} does not tell. `directory` is empty. */
  async check(archive: Archive, directory: string): Promise<Agreement> {
    const started = Math.floor(Date.now() / 1000);
    const tar = archive.layer instanceof Uint8Array ? Buffer.from(archive.layer) : buildTar(archive.layer);
    const outcomes: Outcome[] = [];
    for (const engine of this.#engines)
      for (const form of FORMS) outcomes.push(await unpackOne(engine, form, archive, tar, directory));
    const said = outcomes.map(
      ({ engine, form, refusal }) =>
        `${engine.name}, ${form}: ${refusal === undefined ? 'taken' : `${refusal.code} ${refusal.message}`}`,
    );
    const codes = new Set(outcomes.map(({ refusal }) => refusal?.code));
    assert.equal(codes.size, 1, said.join('\n'));
    const [code] = codes;
    const differences = new Map<Difference, string>();
    if (code !== undefined) return { code, differences };
    const result = outcomes[0]?.result;
    assert.ok(result !== undefined);
    const { size: _size, ...shared } = result;
    for (const { result: other, engine, form } of outcomes) {
      const { size: _, ...rest } = other ?? {};
      assert.deepEqual(rest, shared, `${engine.name}, ${form}`);
    }
    // One look for all: reading attributes costs a process.
    const xattrs = readXattrs(directory);
    const tree = ({ tree: root }: Outcome): TreeSnapshot =>
      comparable(snapshotTree(root, { xattrs: below(xattrs, relative(directory, root)) }), started);
    for (const form of FORMS) {
      const [native, js] = outcomes.filter((outcome) => outcome.form === form) as [Outcome, Outcome];
      assert.equal(js.result?.size, native.result?.size, `the size, ${form}`);
      assert.deepEqual(recordOf(js.record), recordOf(native.record), `the record, ${form}`);
      assertSameTree(tree(native), tree(js), `${form}, native and js`);
    }
    for (const outcome of outcomes) await this.#readBack(outcome, tar, differences);
    await this.#compareViews(outcomes, directory, differences);
    return { result, differences };
  }

  /** Each engine exports and verifies what either made. */
  async #readBack(outcome: Outcome, tar: Buffer, differences: Agreement['differences']): Promise<void> {
    const { engine: maker, form, tree, record, result } = outcome;
    for (const engine of this.#engines) {
      const what = `${form} made by ${maker.name}, read by ${engine.name}`;
      const request = { tarSplit: { path: record }, tree: directoryGetter(tree), diffID: result!.diffID };
      assert.ok((await buffer(await engine.assemble(request))).equals(tar), `the tar as it was: ${what}`);
      const problems = await engine.verifyTree({ ...request, whiteouts: form });
      if (maker !== engine && problems.some(({ cosmetic }) => cosmetic)) differences.set('times', what);
      assert.deepEqual(
        problems.filter(({ cosmetic }) => maker === engine || !cosmetic),
        [],
        what,
      );
    }
  }

  /** What a container sees: the overlay of both layers, and the tree in which both lie. */
  async #compareViews(
    outcomes: readonly Outcome[],
    directory: string,
    differences: Agreement['differences'],
  ): Promise<void> {
    const [native] = this.#engines;
    const [overlay, flat] = outcomes as [Outcome, Outcome];
    const target = join(directory, 'merged');
    mkdirSync(target);
    const lowers = [overlay.tree, join(overlay.directory, 'parent')];
    await native!.mountOverlay({ lowers, target, options: [] });
    try {
      const skip = (path: string): boolean => {
        if (lstatSync(Buffer.from(`${target}${path}`, 'latin1'), { throwIfNoEntry: false }) !== undefined) return false;
        differences.set('listing', path);
        return true;
      };
      const merged = snapshotTree(target, { xattrs: false, mtime: false, skip });
      const whole = snapshotTree(flat.tree, { xattrs: false, mtime: false });
      for (const line of diffTrees(whole, merged)) {
        const path = JSON.parse(/^"(?:[^"\\]|\\.)*"/.exec(line)?.[0] ?? '""') as string;
        const metadata = whole.get(path)?.type === 'directory' && / (mode|owner) expected/.test(line);
        differences.set(metadata ? 'directories' : 'content', line);
      }
    } finally {
      await native!.unmount(target);
    }
  }
}

async function unpackOne(
  engine: Engine,
  form: (typeof FORMS)[number],
  { parent = [], limits }: Archive,
  tar: Buffer,
  base: string,
): Promise<Outcome> {
  const directory = join(base, `${engine.name}-${form}`);
  mkdirSync(directory);
  const below = join(directory, 'parent');
  const tree = form === 'plain' ? below : join(directory, 'tree');
  const record = join(directory, 'record.json.gz');
  for (const path of new Set([below, tree])) mkdirSync(path);
  await engine.ingest(Readable.from([buildTar(parent)]), { directory: below, whiteouts: form });
  const outcome: Outcome = { engine, form, directory, tree, record };
  try {
    const request = { directory: tree, whiteouts: form, tarSplit: { path: record }, hashBlob: true };
    outcome.result = await engine.ingest(Readable.from([tar]), limits === undefined ? request : { ...request, limits });
  } catch (error) {
    if (!LayerStoreError.is(error)) throw new Error(`${engine.name}, ${form}: no LayerStoreError`, { cause: error });
    outcome.refusal = error;
  }
  return outcome;
}

function below(all: ReturnType<typeof readXattrs>, tree: string): ReturnType<typeof readXattrs> {
  const found: ReturnType<typeof readXattrs> = new Map();
  for (const [path, attributes] of all) {
    if (path === `/${tree}`) found.set('/', attributes);
    else if (path.startsWith(`/${tree}/`)) found.set(path.slice(tree.length + 1), attributes);
  }
  return found;
}

/** What a record says: where its segments are cut is free. */
function recordOf(path: string): string[] {
  const said: string[] = [];
  let raw: Buffer[] = [];
  for (const line of gunzipSync(readFileSync(path)).toString().trimEnd().split('\n')) {
    const { type, payload, position: _position, ...file } = JSON.parse(line || '{}') as Record<string, unknown>;
    if (type === 2) raw.push(Buffer.from(String(payload), 'base64'));
    else {
      said.push(Buffer.concat(raw).toString('latin1'), JSON.stringify({ payload, ...file }));
      raw = [];
    }
  }
  return [...said, Buffer.concat(raw).toString('latin1')];
}

/** To the microsecond, before 1970 to the millisecond, which both can set; what no entry names has the time at which it was made. */
function comparable(tree: TreeSnapshot, started: number): TreeSnapshot {
  for (const entry of tree.values()) {
    const [seconds = '', fraction = ''] = entry.mtime.split('.');
    const now = Number(seconds) >= started && Number(seconds) <= Date.now() / 1000;
    // The JavaScript engine makes all whiteouts names of one device.
    if (entry.type === 'char' && entry.device === '0:0') delete entry.links;
    entry.mtime = now ? 'now' : `${seconds}.${fraction.slice(0, seconds.startsWith('-') ? 3 : 6)}`;
  }
  return tree;
}
