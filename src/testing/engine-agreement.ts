/** Two engines held against each other: the same input gives the same digests, trees, records, changes, sizes and tars. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import { LayerStoreError } from '../errors.js';
import type { Engine, TarSource, TreeStack, WhiteoutForm } from '../engine/engine.js';
import { changeLines } from './driver-oracle.js';
import { digestOf, directoryGetter, unpack } from './engine-suite-tars.js';
import type { Unpacked } from './engine-suite-tars.js';
import type { TreeSnapshot } from './tree-snapshot.js';
import { assertSameTree, snapshotTree } from './tree-snapshot.js';
import { readXattrs } from './xattrs.js';

export interface AgreementOptions {
  /** Compare times only to the second: one engine cannot set them finer than doubles hold. */
  wholeSeconds?: boolean;
  whiteouts?: WhiteoutForm;
  /** The tar may be wrong in several ways at once, of which each engine meets another one first: both must refuse it. */
  anyRefusal?: boolean;
}

/** What is said of a bad archive, as against what a system call says. */
const REFUSALS = /^ERR_(BAD_TAR|UNSAFE_PATH|LIMIT_EXCEEDED):/;

/**
 * Unpacks `tar` with both engines into `directory`; both must give the same result, or both must refuse. Gives the
 * code of the refusal, where there was one.
 */
export async function checkSameIngest(
  engines: readonly [Engine, Engine],
  tar: Uint8Array,
  directory: string,
  options: AgreementOptions = {},
): Promise<string | undefined> {
  const { whiteouts = 'overlay' } = options;
  const started = Math.floor(Date.now() / 1000);
  const outcomes = [];
  for (const [i, engine] of engines.entries()) {
    const source: TarSource = Readable.from([tar]);
    outcomes.push(
      await unpack(engine, directory, source, { name: `tree${i}`, whiteouts, hashBlob: true }).catch(codeOf),
    );
  }
  const [first, second] = outcomes as [Unpacked | string, Unpacked | string];
  if (typeof first === 'string' || typeof second === 'string') {
    const [a, b] = [first, second].map((outcome) => (typeof outcome === 'string' ? outcome : 'unpacked: no refusal'));
    const both = typeof first === 'string' && typeof second === 'string';
    if (options.anyRefusal === true && both && [a, b].every((each) => REFUSALS.test(each ?? ''))) return 'refused';
    // The code is what both must agree on; the sentence is each one's own.
    assert.equal(a?.split(':')[0], b?.split(':')[0], `${engines[0].name}: ${a ?? ''}\n${engines[1].name}: ${b ?? ''}`);
    return a?.split(':')[0];
  }
  assert.deepEqual(second.result, first.result);
  assert.deepEqual(recordOf(second.record), recordOf(first.record), 'the tar-split records');
  // One look for both: reading attributes costs a process.
  const xattrs = readXattrs(directory);
  const tree = (unpacked: Unpacked): TreeSnapshot =>
    comparableTimes(
      snapshotTree(unpacked.tree, { xattrs: xattrsBelow(xattrs, unpacked.tree, directory) }),
      started,
      options,
    );
  assertSameTree(tree(first), tree(second), 'unpacked by the second engine');
  // Each gives back what the other one took.
  for (const [engine, { tree, record }] of [
    [engines[0], second],
    [engines[1], first],
  ] as const) {
    const back = await engine.assemble({
      tarSplit: { path: record },
      tree: directoryGetter(tree),
      diffID: first.result.diffID,
    });
    assert.ok((await buffer(back)).equals(tar), 'the tar as it was');
  }
  return undefined;
}

/** Changes, sizes and tars of a difference (or of a whole tree), and the layers that committing it makes. */
export async function checkSameDifference(
  engines: readonly [Engine, Engine],
  request: { upper: TreeStack; lower?: TreeStack },
  directory: string,
): Promise<void> {
  const answers = [];
  for (const [i, engine] of engines.entries()) {
    const tar = await buffer(await engine.treeTar(request));
    const committed = join(directory, `committed${i}`);
    if (request.upper.whiteouts === 'plain') mkdirSync(directory, { recursive: true });
    const record = join(directory, `committed${i}.gz`);
    const { blobDigest, ...result } = await engine.commitTree({
      ...request,
      directory: committed,
      consume: false,
      tarSplit: { path: record },
    });
    assert.equal(result.diffID, digestOf(tar), 'what is committed is what the tar holds');
    // Nobody asked for it; where it is there it is that of the plain tar.
    if (blobDigest !== undefined) assert.equal(blobDigest, result.diffID);
    const back = await engine.assemble({
      tarSplit: { path: record },
      tree: directoryGetter(committed),
      diffID: result.diffID,
    });
    assert.ok((await buffer(back)).equals(tar));
    answers.push({
      changes: changeLines(await engine.changes(request)),
      size: await engine.diffSize(request),
      tar: digestOf(tar),
      length: tar.length,
      result,
    });
  }
  assert.deepEqual(answers[1], answers[0]);
}

function codeOf(error: unknown): string {
  if (error instanceof LayerStoreError) return `${error.code}: ${error.message}`;
  throw error;
}

/** Records are compared by what they say: where segments are cut is free. */
function recordOf(path: string): unknown[] {
  const entries: { type: number; payload?: string | null; name?: string }[] = [];
  for (const line of gunzipSync(readFileSync(path)).toString().split('\n')) {
    if (line === '') continue;
    const { position: _position, ...entry } = JSON.parse(line) as {
      type: number;
      payload?: string | null;
      position: number;
    };
    const last = entries.at(-1);
    if (entry.type === 2 && last?.type === 2) last.payload = joined(last.payload, entry.payload);
    else entries.push(entry);
  }
  return entries;
}

function joined(a: string | null | undefined, b: string | null | undefined): string {
  return Buffer.concat([Buffer.from(a ?? '', 'base64'), Buffer.from(b ?? '', 'base64')]).toString('base64');
}

/** What no entry of the tar names has the time at which it was made: each engine's own, known only to be later than `started`. */
function comparableTimes(
  tree: TreeSnapshot,
  started: number,
  { wholeSeconds = false }: AgreementOptions,
): TreeSnapshot {
  for (const entry of tree.values()) {
    const seconds = entry.mtime.split('.')[0] ?? '';
    if (Number(seconds) >= started && Number(seconds) <= Date.now() / 1000) entry.mtime = 'now';
    else if (wholeSeconds) entry.mtime = seconds;
  }
  return tree;
}

function xattrsBelow(
  all: ReturnType<typeof readXattrs>,
  tree: string,
  directory: string,
): ReturnType<typeof readXattrs> {
  const prefix = `/${relative(directory, tree)}`;
  return new Map(
    [...all].flatMap(([path, attributes]) =>
      path === prefix || path.startsWith(`${prefix}/`) ? [[path.slice(prefix.length) || '/', attributes]] : [],
    ),
  );
}
