/** A blob that comes whatever the registry does to it: the scenarios of containerd's fetcher tests and more, as a table. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { describe, it, type TestContext } from 'node:test';
import { GrowingFile } from '../../../src/engine/growing-file.js';
import { Download, statePath, type DownloadProgress } from '../../../src/registry/download.js';
import type { RangeSettings, RegistrySettings } from '../../../src/registry/settings.js';
import { sha256, TestRegistry, type Fault } from '../../support/registry.js';
import { tempDir } from '../../support/temp.js';
import { openRegistry, REPOSITORY, testSettings } from './support.js';

const BLOB = randomBytes(3 * 1024 * 1024);
const GET = { method: 'GET', path: /\/blobs\// };
const SLOW: RangeSettings = { rangeBytes: 128 * 1024, connections: 6, probeMs: 20, slowRate: 1e9 };

interface Fixture {
  server: TestRegistry;
  download: Download;
  path: string;
  progress: DownloadProgress[];
}

async function fixture(
  t: TestContext,
  options: { faults?: Fault[]; before?: Buffer; state?: string; settings?: Partial<RegistrySettings> } = {},
): Promise<Fixture> {
  const server = await TestRegistry.start(t);
  const digest = server.putBlob(REPOSITORY, BLOB);
  server.faults.push(...(options.faults ?? []));
  const settings = testSettings(options.settings);
  const registry = await openRegistry(t, server, 'pull', options.settings);
  const path = join(tempDir(t, 'registry'), 'blob.partial');
  if (options.before !== undefined) await writeFile(path, options.before);
  if (options.state !== undefined) await writeFile(statePath(path), options.state);
  const progress: DownloadProgress[] = [];
  const download = new Download({
    digest,
    size: BLOB.length,
    path,
    sources: registry.blobSources(digest),
    retries: settings.retries,
    ranges: settings.ranges,
    onProgress: (event) => void progress.push(event),
  });
  t.after(() => download.close(new Error('the test is over')));
  return { server, download, path, progress };
}

/** As whoever unpacks it reads it: while it comes. */
function contentOf(download: Download): GrowingFile {
  return new GrowingFile(async () => download);
}

/** What a reader got that began with the download. */
async function readWhileItComes({ download }: Fixture): Promise<Buffer> {
  const [bytes] = await Promise.all([buffer(contentOf(download)), download.run()]);
  return bytes;
}

describe('a blob on its way', () => {
  const cases: {
    name: string;
    faults?: Fault[];
    before?: Buffer;
    state?: string;
    /** The ranges that were asked for, in order; `-` for none. */
    ranges: string[];
    mixed: boolean;
  }[] = [
    { name: 'comes in one request', ranges: ['-'], mixed: false },
    {
      name: 'goes on where the connection broke',
      faults: [{ ...GET, cutAfter: 1024 * 1024 }],
      ranges: ['-', 'bytes=1048576-'],
      mixed: true,
    },
    {
      name: 'goes on after each of three breaks',
      faults: [
        { ...GET, cutAfter: 1000 },
        { ...GET, cutAfter: 1000 },
        { ...GET, cutAfter: 1000 },
      ],
      ranges: ['-', 'bytes=1000-', 'bytes=2000-', 'bytes=3000-'],
      mixed: true,
    },
    {
      name: 'goes on where a body ended early',
      faults: [{ ...GET, endAfter: 4096 }],
      ranges: ['-', 'bytes=4096-'],
      mixed: true,
    },
    {
      name: 'counts a connection without a byte as broken',
      faults: [{ ...GET, stallAfter: 70_000 }],
      ranges: ['-', 'bytes=70000-'],
      mixed: true,
    },
    {
      name: 'begins again on a 200 in place of a 206',
      faults: [
        { ...GET, cutAfter: 1_000_000 },
        { ...GET, ignoreRange: true },
      ],
      ranges: ['-', 'bytes=1000000-'],
      mixed: true,
    },
    {
      name: 'begins again after a wrong Content-Range',
      faults: [
        { ...GET, cutAfter: 1_000_000 },
        { ...GET, contentRange: `bytes 5-9/${BLOB.length}` },
      ],
      ranges: ['-', 'bytes=1000000-', '-'],
      mixed: true,
    },
    {
      name: 'begins again where another size is told',
      faults: [
        { ...GET, cutAfter: 1_000_000 },
        { ...GET, contentRange: `bytes 1000000-${BLOB.length - 1}/99` },
      ],
      ranges: ['-', 'bytes=1000000-', '-'],
      mixed: true,
    },
    {
      name: 'begins again on a 416',
      faults: [
        { ...GET, cutAfter: 1_000_000 },
        { ...GET, answer: { status: 416 } },
      ],
      ranges: ['-', 'bytes=1000000-', '-'],
      mixed: true,
    },
    {
      name: 'waits for a registry that is overloaded',
      faults: [503, 500, 429].map((status) => ({ ...GET, answer: { status } })),
      ranges: ['-', '-', '-', '-'],
      mixed: false,
    },
    {
      name: 'goes on from the file of an earlier process',
      before: BLOB.subarray(0, 2_000_000),
      ranges: ['bytes=2000000-'],
      mixed: true,
    },
    {
      name: 'trusts a file with holes only as far as it is noted',
      before: Buffer.concat([BLOB.subarray(0, 500_000), Buffer.alloc(1_000_000)]),
      state: '0000000000500000',
      ranges: ['bytes=500000-'],
      mixed: true,
    },
    {
      name: 'trusts nothing where the note was torn',
      before: Buffer.alloc(1_000_000),
      state: '',
      ranges: ['-'],
      mixed: false,
    },
    { name: 'is not fetched where the file is whole', before: BLOB, ranges: [], mixed: true },
  ];
  for (const { name, ranges, mixed, ...options } of cases) {
    it(name, async (t) => {
      const given = await fixture(t, options);
      assert.deepEqual(await readWhileItComes(given), BLOB);
      assert.deepEqual(await readFile(given.path), BLOB);
      const asked = given.server.asked('GET', /\/blobs\//);
      assert.deepEqual(
        asked.map(({ range }) => range ?? '-'),
        ranges,
      );
      assert.equal(given.download.mixed, mixed);
      assert.equal(existsSync(statePath(given.path)), false, 'no note beside a whole file');
      assert.deepEqual(await buffer(contentOf(given.download)), BLOB, 'it can be read again');
    });
  }

  it('asks for the rest only as long as the blob is the same', async (t) => {
    const given = await fixture(t, { faults: [{ ...GET, cutAfter: 5000 }] });
    await readWhileItComes(given);
    assert.equal(given.server.asked('GET', /\/blobs\//)[1]?.ifRange, `"${sha256(BLOB)}"`);
  });

  const failures: { name: string; faults: Fault[]; code: string; requests: number }[] = [
    {
      name: 'gives up a connection that breaks each time',
      faults: [{ ...GET, cutAfter: 10, times: 100 }],
      code: 'ERR_REGISTRY',
      requests: 4,
    },
    {
      name: 'gives up a blob that is not there',
      faults: [{ ...GET, answer: { status: 404 } }],
      code: 'ERR_REGISTRY',
      requests: 1,
    },
    {
      name: 'gives up what it may not read',
      faults: [{ ...GET, answer: { status: 403 } }],
      code: 'ERR_UNAUTHORIZED',
      requests: 1,
    },
    { name: 'refuses another length', faults: [{ ...GET, length: 10 }], code: 'ERR_DIGEST_MISMATCH', requests: 1 },
    {
      name: 'refuses bytes beyond the end',
      faults: [{ ...GET, extraBytes: 5 }],
      code: 'ERR_DIGEST_MISMATCH',
      requests: 1,
    },
    {
      name: 'does not wait longer than a minute',
      faults: [{ ...GET, answer: { status: 429, headers: { 'retry-after': '61' } } }],
      code: 'ERR_REGISTRY',
      requests: 1,
    },
  ];
  for (const { name, faults, code, requests } of failures) {
    it(name, async (t) => {
      const given = await fixture(t, { faults });
      const reading = assert.rejects(buffer(contentOf(given.download)), { code });
      await assert.rejects(given.download.run(), { code });
      await reading;
      assert.equal(given.server.asked('GET', /\/blobs\//).length, requests);
    });
  }

  it('keeps the file when it is closed, for the next one', async (t) => {
    const given = await fixture(t, {
      faults: [{ ...GET, stallAfter: 100_000 }],
      settings: { noProgressTimeout: 30_000 },
    });
    const run = given.download.run();
    const reader = contentOf(given.download)[Symbol.asyncIterator]();
    const first = (await reader.next()).value as Buffer;
    assert.deepEqual(first, BLOB.subarray(0, first.length));
    const reason = new Error('enough');
    const ended = Promise.all([assert.rejects(run, reason), assert.rejects(reader.next(), reason)]);
    await given.download.close(reason);
    await ended;
    assert.ok((await readFile(given.path)).length > 0);
  });

  it('comes by ranges where a connection is slow, in order for whoever reads', async (t) => {
    const given = await fixture(t, { settings: { ranges: SLOW } });
    given.server.rate = 2 * 1024 * 1024;
    assert.deepEqual(await readWhileItComes(given), BLOB);
    assert.ok(given.server.mostAtOnce >= 4, `${given.server.mostAtOnce} bodies at once`);
    assert.equal(existsSync(statePath(given.path)), false);
  });

  for (const [name, fault] of [
    ['ignores ranges', { ignoreRange: true }],
    ['says 429', { answer: { status: 429 } }],
    ['breaks them', { cutAfter: 0 }],
  ] as const) {
    it(`comes by one connection where the registry ${name}`, async (t) => {
      const faults = [{ method: 'GET', path: /never/ }] as Fault[];
      const given = await fixture(t, { faults, settings: { ranges: SLOW } });
      given.server.rate = 4 * 1024 * 1024;
      // The first request is as it should be; every range after it is not, until one connection is left.
      let requests = 0;
      given.server.faults[0] = {
        method: 'GET',
        path: { test: (url: string) => /\/blobs\//.test(url) && ++requests > 1 && requests < 8 } as RegExp,
        times: 6,
        ...fault,
      };
      assert.deepEqual(await readWhileItComes(given), BLOB);
      assert.deepEqual(await readFile(given.path), BLOB);
    });
  }

  it('asks the next server where one keeps failing', async (t) => {
    const server = await TestRegistry.start(t);
    const mirror = await TestRegistry.start(t);
    const digest = server.putBlob(REPOSITORY, BLOB);
    mirror.putBlob(REPOSITORY, BLOB);
    mirror.faults.push({ ...GET, cutAfter: 100_000, times: 100 });
    const hosts = {
      [server.host]: { plainHTTP: true, mirrors: [mirror.host] },
      [mirror.host]: { plainHTTP: true },
    };
    const registry = await openRegistry(t, server, 'pull', { hosts });
    const download = new Download({
      digest,
      size: BLOB.length,
      path: join(tempDir(t, 'registry'), 'blob.partial'),
      sources: registry.blobSources(digest),
      retries: 2,
      ranges: testSettings().ranges,
      onProgress: () => undefined,
    });
    t.after(() => download.close(new Error('the test is over')));
    const [bytes] = await Promise.all([buffer(contentOf(download)), download.run()]);
    assert.deepEqual(bytes, BLOB);
    assert.match(server.asked('GET', /\/blobs\//)[0]?.range ?? '', /^bytes=[1-9]/, 'it goes on there');
  });
});
