/** Disks that are really full, out of inodes, or fail in the middle of the work; too few descriptors; sources that fail. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test, type TestContext } from 'node:test';
import { LayerStoreError } from '../../src/errors.js';
import { openStore } from '../../src/store/open.js';
import type { Store, StoreOptions } from '../../src/store/types.js';
import { pick, runSeed, seededRandom } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import { Disks, run } from './support/disks.js';
import { instrument } from './support/instrument.js';
import { assertNoLosses, check, fold, leftovers, type Entry } from './support/promises.js';
import { sampleTar } from './support/tars.js';
import { makeBase, Workload } from './support/workload.js';

const system =
  (...names: string[]) =>
  (error: unknown): boolean =>
    (LayerStoreError.is(error, 'ERR_SYSTEM') && names.includes(error.errnoName ?? '')) ||
    // What unpacking leaves free is a limit of ours, and speaks before the kernel does.
    (names.includes('ENOSPC') && LayerStoreError.is(error, 'ERR_LIMIT_EXCEEDED'));

const MIB = 1024 * 1024;

interface Small {
  root: string;
  place: string;
}

function smallDisk(t: TestContext, mkfs: readonly string[]): Small {
  const disks = Disks.cloning(t);
  const place = disks.mount(disks.image('ext4', { bytes: 24 * MIB, mkfs }), 'ext4');
  return { place, root: join(place, 'root') };
}

const options = (root: string): StoreOptions => ({
  root,
  engine: 'native',
  driver: 'overlay2',
  limits: { minFreeBytes: 0 },
});

/** The checks take handles, so they get a store of their own; what may be left was begun and could not be ended. */
async function inspect(root: string, log: readonly Entry[], what: string): Promise<void> {
  const store = await openStore(options(root));
  try {
    assertNoLosses((await check(store, fold(log))).losses, what);
    await store.cleanup();
    assertNoLosses(await leftovers(store, root, 'overlay2'), `left over, ${what}`);
  } finally {
    await store.close();
  }
}

/** Work that may fail as `allowed` says, then the same disk with room again. */
async function squeeze(
  t: TestContext,
  { root }: Small,
  allowed: (error: unknown) => boolean,
  disk: { squeeze: (round: number) => void; relieve: () => void },
  rounds: number,
): Promise<void> {
  const seed = runSeed();
  const random = seededRandom(seed);
  const log: Entry[] = [];
  let failed = 0;
  let ops = 0;
  const nextOp = (): number => (ops += 1);
  const write = (entry: Entry): void => void log.push(entry);
  const mayFail = (error: unknown): boolean => {
    failed += 1;
    return allowed(error);
  };
  for (let round = 0; round < rounds; round += 1) {
    const what = `round ${round}, LAYERSTORE_SEED=${seed}`;
    let store = await openStore(options(root));
    if (round === 0) await makeBase(store, write, nextOp());
    const lane = { log: write, random, lane: 1, nextOp, mounts: false };
    const workload = await Workload.start({ ...lane, store, mayFail });
    disk.squeeze(round);
    for (let n = 0; n < 10; n += 1) await workload.step();
    disk.relieve();
    // With room again the very same store works, without a restart.
    await workload.register();
    await store.close();
    await inspect(root, log, what);
    store = await openStore(options(root));
    await (await Workload.resume({ ...lane, store }, fold(log))).clear();
    await store.close();
    await inspect(root, log, `cleared after ${what}`);
  }
  t.diagnostic(`${ops} operations, ${failed} rejected, 0 losses (LAYERSTORE_SEED=${seed})`);
  assert.ok(failed > 0, 'the disk was full at times');
}

test('a disk with less and less room', async (t) => {
  const disk = smallDisk(t, ['-m', '0']);
  const ballast = join(disk.place, 'ballast');
  await squeeze(
    t,
    disk,
    system('ENOSPC'),
    {
      squeeze: (round) => {
        // dd ends when nothing more fits; then so much is given back.
        spawnSync('dd', ['if=/dev/zero', `of=${ballast}`, 'bs=64k', 'conv=fsync'], { stdio: 'ignore' });
        truncateSync(ballast, Math.max(0, statSync(ballast).size - round * 32 * 1024));
      },
      relieve: () => rmSync(ballast),
    },
    14,
  );
});

test('a disk without inodes', async (t) => {
  const disk = smallDisk(t, ['-N', '512']);
  const ballast = join(disk.place, 'ballast');
  await squeeze(
    t,
    disk,
    system('ENOSPC'),
    {
      squeeze: (round) => {
        const { ffree } = statfsSync(disk.place);
        execFileSync('mkdir', ['-p', ballast]);
        for (let n = 0; n < ffree - 4 * round - 1; n += 1) writeFileSync(join(ballast, String(n)), '');
      },
      relieve: () => rmSync(ballast, { recursive: true }),
    },
    10,
  );
});

test('a disk that fails in the middle of the work, for good', async (t) => {
  const disks = Disks.cloning(t);
  const image = disks.image('ext4');
  const random = seededRandom(runSeed());
  const log: Entry[] = [];
  let ops = 0;
  let rejected = 0;
  for (let round = 1; round <= 8; round += 1) {
    const place = disks.mount(image, 'ext4');
    const root = join(place, 'root');
    if (round > 1) await inspect(root, log, `round ${round}`);
    const store = await openStore(options(root));
    const lane = {
      log: (entry: Entry) => void log.push(entry),
      random,
      lane: 1,
      nextOp: () => (ops += 1),
      mounts: false,
    };
    if (round === 1) await makeBase(store, lane.log, lane.nextOp());
    const mayFail = (error: unknown): boolean => {
      rejected += 1;
      return system('EIO', 'EROFS', 'ESHUTDOWN')(error) || LayerStoreError.is(error, 'ERR_LAYER_CORRUPT');
    };
    const workload = await Workload.resume({ ...lane, store, mayFail }, fold(log));
    let steps = 0;
    const fatal = 5 + pick(random, 120);
    const restore = instrument(root, {
      before: () => {
        // From here on every access is EIO, as on a disk that was pulled; nothing more reaches the image.
        if ((steps += 1) === fatal) run('xfs_io', ['-x', '-c', 'shutdown', place]);
      },
    });
    const failedBefore = rejected;
    try {
      for (let n = 0; n < 60 && rejected === failedBefore; n += 1) {
        // What was failing when the disk went may or may not be on it.
        await workload.step();
      }
    } finally {
      restore();
    }
    log.splice(0, log.length, ...inDoubt(log));
    await store.close().catch((error: unknown) => assert.ok(LayerStoreError.is(error, 'ERR_SYSTEM'), String(error)));
    disks.unmount(place);
  }
  const place = disks.mount(image, 'ext4');
  await inspect(join(place, 'root'), log, 'at the end');
  disks.unmount(place);
  t.diagnostic(`${ops} operations, ${rejected} rejected, 0 losses`);
  assert.ok(rejected > 0);
});

/** An operation that a dying disk rejected is as good as one that was never heard of again. */
function inDoubt(log: readonly Entry[]): Entry[] {
  return log.filter(({ at }) => at !== 'failed');
}

async function usable(store: Store, root: string): Promise<void> {
  const layer = await store.register(Readable.from([sampleTar(5, 1).bytes]));
  await store.release(layer);
  assert.equal(store.map().size, 0);
  assertNoLosses(await leftovers(store, root, 'overlay2'), 'left over');
}

test('no descriptor left', async (t) => {
  const root = join(tempDir(t, 'descriptors'), 'root');
  const store = await openStore({ root, engine: 'native', driver: 'overlay2' });
  t.after(() => store.close());
  const limit = (soft: number): void => run('prlimit', [`--pid=${process.pid}`, `--nofile=${soft}:`]);
  const usual = Number(/Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]);
  t.after(() => limit(usual));
  let rejected = 0;
  for (let room = 10; room >= 0; room -= 1) {
    const tar = Readable.from([sampleTar(5, room).bytes]);
    // Some to give back, since whoever lifts the limit needs a few.
    const spare = Array.from({ length: 16 }, () => openSync('/dev/null', 'r'));
    limit(slot(room));
    let layer;
    try {
      layer = await store.register(tar);
    } catch (error) {
      rejected += 1;
      assert.ok(system('EMFILE')(error), String(error));
    } finally {
      spare.forEach((fd) => closeSync(fd));
      limit(usual);
    }
    if (layer !== undefined) await store.release(layer);
    await store.cleanup();
    await usable(store, root);
  }
  t.diagnostic(`${rejected} of 11 registrations rejected`);
  assert.ok(rejected > 0, 'the limit was reached');
});

/** The lowest limit that leaves `room` descriptors free. */
function slot(room: number): number {
  const used = new Set(readdirSync('/proc/self/fd'));
  let free = 0;
  for (let fd = 0; ; fd += 1) if (!used.has(String(fd)) && (free += 1) > room) return fd;
}

test('a source that fails, ends early, or stalls until it is aborted', async (t) => {
  const root = join(tempDir(t, 'sources'), 'root');
  const store = await openStore({ root, engine: 'native', driver: 'overlay2' });
  t.after(() => store.close());
  const { bytes } = sampleTar(5, 2);
  const broken = new Error('the network is gone');
  for (let at = 0; at < bytes.length; at += 1 + Math.floor(bytes.length / 12)) {
    const failing = async function* (): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(0, at);
      throw broken;
    };
    await assert.rejects(store.register(failing()), (error) => error === broken);
    const stalling = async function* (): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(0, at);
      await new Promise(() => undefined);
    };
    const reason = new Error('enough');
    const abort = new AbortController();
    setTimeout(() => abort.abort(reason), 20);
    const started = performance.now();
    await assert.rejects(
      store.register(Readable.from(stalling()), undefined, { signal: abort.signal }),
      (error) => error === reason,
    );
    t.diagnostic(`aborted after ${Math.round(performance.now() - started - 20)} ms`);
    await usable(store, root);
  }
  // Cut inside of a file.
  await assert.rejects(store.register(Readable.from([bytes.subarray(0, 700)])), { code: 'ERR_BAD_TAR' });
  await usable(store, root);
});

test('a clock that goes backwards: references expire by what it says, layers do not care', async (t) => {
  const root = join(tempDir(t, 'clock'), 'root');
  t.mock.timers.enable({ apis: ['Date'], now: Date.parse('2030-01-01') });
  let store = await openStore({ root, engine: 'native', driver: 'overlay2' });
  const kept = await store.register(Readable.from([sampleTar(5, 3).bytes]));
  await store.retain(kept.chainID, 'later', { expires: new Date('2031-01-01') });
  await store.close();
  // Twenty years back: nothing has expired, nothing is from the future.
  t.mock.timers.setTime(Date.parse('2010-01-01'));
  store = await openStore({ root, engine: 'native', driver: 'overlay2' });
  assert.deepEqual((await store.gc()).removed, []);
  const more = await store.register(Readable.from([sampleTar(5, 4).bytes]), kept.chainID);
  await store.retain(more.chainID, 'sooner', { expires: new Date('2010-06-01') });
  await store.release(more);
  assert.equal(store.map().size, 2);
  // Forward over one of them, then back again: what gc took is gone, what it did not is there.
  t.mock.timers.setTime(Date.parse('2010-07-01'));
  assert.deepEqual(
    (await store.gc()).removed.map(({ chainID }) => chainID),
    [more.chainID],
  );
  t.mock.timers.setTime(Date.parse('2010-01-01'));
  await store.close();
  store = await openStore({ root, engine: 'native', driver: 'overlay2' });
  assert.deepEqual([...store.map().keys()], [kept.chainID]);
  assert.deepEqual(
    store.references().map(({ name }) => name),
    ['later'],
  );
  assert.deepEqual((await store.verify()).ok, true);
  await store.close();
});
