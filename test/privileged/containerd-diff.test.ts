/** The diff service as containerd calls it: what Apply unpacks becomes a layer of the store, and what it refuses leaves nothing. */
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { describe, it, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import { execFileSync } from 'node:child_process';
import * as grpc from '@grpc/grpc-js';
import { createChainID, type DiffID } from '../../src/digest.js';
import type { UnpackLimits } from '../../src/engine/engine.js';
import { loadGrpc } from '../../src/containerd/grpc.js';
import { openStore } from '../../src/store/open.js';
import type { Store } from '../../src/store/types.js';
import { serve, type SnapshotsClient, type WireMount } from '../support/containerd.js';
import { tempDir } from '../support/temp.js';
import { sha256, tar } from '../unit/image/archives.js';

const TAR = 'application/vnd.oci.image.layer.v1.tar';
const { definition } = await loadGrpc();

interface Blob {
  media_type: string;
  digest: string;
  size: number;
}
type Client = Record<string, (...args: readonly unknown[]) => unknown>;

function diffClient(t: TestContext, address: string): Client {
  const service = 'containerd.services.diff.v1.Diff';
  const Constructor = grpc.makeGenericClientConstructor(definition('diff.proto', service), service);
  const client = new Constructor(`unix:${address}`, grpc.credentials.createInsecure());
  t.after(() => client.close());
  return client as unknown as Client;
}

function call<T>(client: Client, method: string, request: object): Promise<T> {
  return new Promise((resolve, reject) => {
    client[method]?.(request, (error: grpc.ServiceError | null, answer: T) => {
      if (error === null) resolve(answer);
      else reject(error);
    });
  });
}

/** The status that a call is refused with. */
async function refused(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return grpc.status[(error as grpc.ServiceError).code] ?? String(error);
  }
  return 'OK';
}

interface Setup {
  readonly store: Store;
  readonly root: string;
  readonly snapshots: SnapshotsClient;
  readonly diff: Client;
  /** Puts a blob into the content store. `as`: under another digest than its own. */
  readonly put: (bytes: Uint8Array, mediaType?: string, as?: string) => Blob;
}

interface SetupOptions {
  readonly limits?: UnpackLimits;
  readonly content?: 'files' | 'service' | 'none';
  readonly contentAddress?: string;
}

async function setup(t: TestContext, { limits, content = 'files', contentAddress }: SetupOptions = {}): Promise<Setup> {
  const scratch = tempDir(t, 'diff');
  const root = join(scratch, 'root');
  const contentRoot = join(scratch, 'containerd');
  const blobs = join(contentRoot, 'io.containerd.content.v1.content/blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const store = await openStore({ root, ...(limits === undefined ? {} : { limits }) });
  t.after(() => store.close());
  const { server, client } = await serve(t, store, scratch, {
    ...(content === 'files' ? { contentRoot } : {}),
    ...(contentAddress === undefined ? {} : { contentAddress }),
  });
  return {
    store,
    root,
    snapshots: client,
    diff: diffClient(t, server.address),
    put: (bytes, mediaType = TAR, as = sha256(bytes)) => {
      writeFileSync(join(blobs, as.slice('sha256:'.length)), bytes);
      return { media_type: mediaType, digest: as, size: bytes.length };
    },
  };
}

const apply = (diff: Client, blob: Blob, mounts: readonly WireMount[]): Promise<{ applied: Blob }> =>
  call(diff, 'Apply', { diff: blob, mounts });

const base = await tar([[{ name: 'etc/', type: 'directory' }], ['etc/one', 'one\n'], ['etc/two', 'two\n']]);
const upper = await tar([
  ['etc/.wh.two', ''],
  ['etc/three', 'three\n'],
]);

/** Nothing of a snapshot that was given up, and no layer. */
async function assertNothing({ store, root, snapshots }: Setup, key: string): Promise<void> {
  await snapshots.remove(key);
  assert.deepEqual([...store.map().keys()], []);
  await store.cleanup();
  assert.deepEqual(
    readdirSync(join(root, 'overlay2')).filter((name) => name !== 'l'),
    [],
  );
  assert.deepEqual(readdirSync(join(root, 'layerstore/containerd/applied')), []);
}

describe('Apply', () => {
  const forms: readonly (readonly [string, (bytes: Buffer) => Uint8Array])[] = [
    ['', (bytes) => bytes],
    ['+gzip', (bytes) => gzipSync(bytes)],
    ['+zstd', (bytes) => execFileSync('zstd', ['-q', '-c'], { input: bytes })],
  ];
  for (const [suffix, compress] of forms) {
    it(`makes layers of the store: ${TAR}${suffix}`, async (t) => {
      const { store, snapshots, diff, put } = await setup(t);
      const chain: string[] = [];
      for (const [index, bytes] of [base, upper].entries()) {
        const key = `ns/${2 * index}/extract-1 x`;
        const parent = index === 0 ? '' : `ns/${2 * index - 1}/${chain[0]}`;
        const mounts = await snapshots.prepare(key, parent);
        const { applied } = await apply(diff, put(compress(bytes), `${TAR}${suffix}`), mounts);
        assert.deepEqual(applied, { media_type: TAR, digest: sha256(bytes), size: bytes.length, annotations: {} });
        const chainID = createChainID([sha256(base), sha256(upper)].slice(0, index + 1) as DiffID[]) ?? '';
        chain.push(chainID);
        await snapshots.commit(`ns/${2 * index + 1}/${chainID}`, key);
      }
      assert.deepEqual([...store.map().keys()].sort(), [...chain].sort());
      assert.ok((await store.verify()).ok);
      for (const [chainID, layer] of store.map()) {
        const bytes = chainID === chain[0] ? base : upper;
        assert.deepEqual(await buffer(await layer.tarStream()), bytes, 'the exact tar');
      }
      // Removed from containerd: the store has no reason to keep them.
      await snapshots.remove(`ns/3/${chain[1]}`);
      await snapshots.remove(`ns/1/${chain[0]}`);
      assert.deepEqual([...store.map().keys()], []);
    });
  }

  it('shares a layer that the store registered meanwhile', async (t) => {
    const { store, snapshots, diff, put } = await setup(t);
    const mounts = await snapshots.prepare('ns/1/extract');
    await apply(diff, put(base), mounts);
    const layer = await store.register(
      (async function* () {
        yield base;
      })(),
    );
    await snapshots.commit(`ns/2/${layer.chainID}`, 'ns/1/extract');
    await store.release(layer);
    assert.deepEqual([...store.map().keys()], [layer.chainID], 'the snapshot keeps it');
    const [mount] = await snapshots.prepare('ns/3/box', `ns/2/${layer.chainID}`);
    assert.equal(mount?.type, 'overlay');
    await snapshots.remove('ns/3/box');
    await snapshots.remove(`ns/2/${layer.chainID}`);
    assert.deepEqual([...store.map().keys()], []);
  });

  it('makes no layer of what is more than the one tar', async (t) => {
    const { store, snapshots, diff, put } = await setup(t);
    const mounts = await snapshots.prepare('ns/1/extract');
    writeFileSync(join(mounts[0]?.source ?? '', 'before'), 'written before');
    const { applied } = await apply(diff, put(base), mounts);
    assert.equal(applied.digest, sha256(base));
    await snapshots.commit(`ns/2/${sha256(base)}`, 'ns/1/extract');
    assert.deepEqual([...store.map().keys()], []);
    const [mount] = await snapshots.prepare('ns/3/box', `ns/2/${sha256(base)}`);
    assert.equal(mount?.type, 'overlay');
  });

  it('refuses a blob that is another one', async (t) => {
    const place = await setup(t);
    const mounts = await place.snapshots.prepare('ns/1/extract');
    const blob = place.put(base, TAR, sha256('something else'));
    assert.equal(await refused(apply(place.diff, blob, mounts)), 'FAILED_PRECONDITION');
    await assertNothing(place, 'ns/1/extract');
  });

  it('refuses what is past a limit of the store', async (t) => {
    const place = await setup(t, { limits: { maxEntries: 2 } });
    const mounts = await place.snapshots.prepare('ns/1/extract');
    assert.equal(await refused(apply(place.diff, place.put(base), mounts)), 'RESOURCE_EXHAUSTED');
    await assertNothing(place, 'ns/1/extract');
  });

  it('says which blob is not there', async (t) => {
    const place = await setup(t);
    const mounts = await place.snapshots.prepare('ns/1/extract');
    const blob = { media_type: TAR, digest: sha256('nowhere'), size: 1 };
    assert.equal(await refused(apply(place.diff, blob, mounts)), 'NOT_FOUND');
    for (const digest of ['sha256:../../../etc/passwd', 'sha256:', `sha256:${'A'.repeat(64)}`]) {
      assert.equal(await refused(apply(place.diff, { ...blob, digest }, mounts)), 'INVALID_ARGUMENT', digest);
    }
    await assertNothing(place, 'ns/1/extract');
  });

  it('leaves to another differ what it does not do, and touches no directory but those of active snapshots', async (t) => {
    const { root, snapshots, diff, put } = await setup(t);
    const outside = tempDir(t, 'outside');
    const [mine] = (await snapshots.prepare('ns/1/extract')) as [WireMount];
    await apply(diff, put(base), [mine]);
    await snapshots.commit('ns/2/committed', 'ns/1/extract');
    const [on] = (await snapshots.prepare('ns/3/on', 'ns/2/committed')) as [WireMount];
    const [active] = (await snapshots.prepare('ns/4/active')) as [WireMount];
    const bind = (source: string): WireMount => ({ type: 'bind', source, target: '', options: ['rw', 'rbind'] });
    const rows: readonly (readonly [string, readonly WireMount[]])[] = [
      ['a directory outside', [bind(outside)]],
      ["the store's root", [bind(root)]],
      ['a committed snapshot', [mine]],
      ['a path that leads out of a snapshot', [bind(`${active.source}/../../../../..${outside}`)]],
      ['a path that leads back', [bind(`${active.source}/../diff`)]],
      ['a directory in a snapshot', [bind(`${active.source}/etc`)]],
      ['read-only', [{ ...active, options: ['ro', 'rbind'] }]],
      ['a place below the mount', [{ ...active, target: '/etc' }]],
      ['two mounts', [active, bind(outside)]],
      ['no mount', []],
      ['an overlay with an upper directory elsewhere', [{ ...on, options: [`upperdir=${outside}`, ...on.options] }]],
      ['another file system', [{ ...active, type: 'ext4' }]],
    ];
    for (const [what, mounts] of rows) {
      assert.equal(await refused(apply(diff, put(upper), mounts)), 'UNIMPLEMENTED', what);
    }
    for (const blob of [
      { ...put(upper), media_type: `${TAR}+gzip+encrypted` },
      { ...put(upper), media_type: 'application/octet-stream' },
      { ...put(upper), digest: `sha512:${'0'.repeat(128)}` },
    ]) {
      assert.equal(await refused(apply(diff, blob, [active])), 'UNIMPLEMENTED');
    }
    assert.deepEqual(readdirSync(outside), []);
    assert.deepEqual(readdirSync(active.source), []);
    assert.deepEqual(readdirSync(join(mine.source, 'etc')).sort(), ['one', 'two']);
  });

  it('is left to another differ where no content is known', async (t) => {
    const place = await setup(t, { content: 'none' });
    const mounts = await place.snapshots.prepare('ns/1/extract');
    assert.equal(await refused(apply(place.diff, place.put(base), mounts)), 'UNIMPLEMENTED');
  });
});

describe("Apply by containerd's content service", () => {
  type Read = grpc.ServerWritableStream<{ digest: string }, { offset: number; data: Uint8Array }>;

  /** A content service, and a store that reads through it. */
  async function through(t: TestContext, read: (call: Read) => void): Promise<Setup> {
    const address = join(tempDir(t, 'content'), 's');
    const server = new grpc.Server();
    server.addService(definition('content.proto', 'containerd.services.content.v1.Content'), {
      Read: read as grpc.UntypedHandleCall,
    });
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix:${address}`, grpc.ServerCredentials.createInsecure(), (error) => {
        if (error === null) resolve();
        else reject(error);
      });
    });
    t.after(() => server.forceShutdown());
    return setup(t, { content: 'service', contentAddress: address });
  }

  it('reads the blob in the namespace of the snapshot', async (t) => {
    const asked: unknown[] = [];
    const place = await through(t, (stream) => {
      asked.push([stream.request.digest, stream.metadata.get('containerd-namespace')]);
      for (let at = 0; at < base.length; at += 1000) stream.write({ offset: at, data: base.subarray(at, at + 1000) });
      stream.end();
    });
    const blob = place.put(base);
    const { applied } = await apply(place.diff, blob, await place.snapshots.prepare('team/1/extract'));
    assert.equal(applied.digest, sha256(base));
    assert.deepEqual(asked, [[blob.digest, ['team']]]);
  });

  const faults: readonly (readonly [string, string, (stream: Read) => void])[] = [
    ['a gap', 'DATA_LOSS', (stream) => (stream.write({ offset: 7, data: base }), stream.end())],
    [
      'too few bytes',
      'INVALID_ARGUMENT',
      (stream) => (stream.write({ offset: 0, data: base.subarray(0, 1024) }), stream.end()),
    ],
    [
      'no such blob',
      'NOT_FOUND',
      (stream) => stream.emit('error', Object.assign(new Error('not found'), { code: grpc.status.NOT_FOUND })),
    ],
    [
      'a failure',
      'UNAVAILABLE',
      (stream) => stream.emit('error', Object.assign(new Error('disk'), { code: grpc.status.INTERNAL })),
    ],
  ];
  for (const [what, status, fault] of faults) {
    it(`${what}: ${status}, and nothing is left`, async (t) => {
      const place = await through(t, (stream) => void fault(stream));
      const mounts = await place.snapshots.prepare('ns/1/extract');
      assert.equal(await refused(apply(place.diff, place.put(base), mounts)), status);
      await assertNothing(place, 'ns/1/extract');
    });
  }

  it('ends reading when the caller goes', async (t) => {
    const events = new EventEmitter();
    const [ended, begun] = [once(events, 'ended'), once(events, 'begun')];
    const place = await through(t, (stream) => {
      stream.on('cancelled', () => events.emit('ended'));
      stream.write({ offset: 0, data: base.subarray(0, 512) });
      events.emit('begun');
    });
    const mounts = await place.snapshots.prepare('ns/1/extract');
    const running = place.diff['Apply']?.({ diff: place.put(base), mounts }, () => undefined) as grpc.ClientUnaryCall;
    const over = once(running, 'status');
    await begun;
    running.cancel();
    await Promise.all([ended, over]);
    await assertNothing(place, 'ns/1/extract');
  });
});

describe('Diff', () => {
  it('is left to another differ', async (t) => {
    const { diff, snapshots } = await setup(t);
    const right = await snapshots.prepare('ns/1/box');
    assert.equal(await refused(call(diff, 'Diff', { left: [], right, media_type: TAR })), 'UNIMPLEMENTED');
  });
});
