/** Good work, bad input, aborts and dropped streams in turn: no descriptor, thread, temporary file or listener stays. */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { createReadStream, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { test } from 'node:test';
import type { IngestRequest } from '../../../src/engine/engine.js';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { LayerStoreError } from '../../../src/errors.js';
import { tempDir } from '../../support/temp.js';
import { addonThreads, eventually, makeTar, openDescriptors } from './native-support.js';

const engine = loadNativeEngine();
const records = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('layerstore-record-'));

test('nothing stays open after work of every outcome', async (t) => {
  const dir = tempDir(t);
  const tar = makeTar(dir, 10, 50_000);
  const { diffID } = await engine.hashFile(tar);
  const { signal } = new AbortController();
  const layer = join(dir, 'layer');
  const record = join(dir, 'record.gz');
  const fresh = (extra: Partial<IngestRequest> = {}): IngestRequest => {
    rmSync(layer, { recursive: true, force: true });
    rmSync(record, { force: true });
    mkdirSync(layer);
    return { directory: layer, whiteouts: 'overlay', tarSplit: { path: record }, signal, ...extra };
  };
  const tree = { directory: layer, open: () => Promise.reject(new Error('unused')), close: () => Promise.resolve() };
  const refused = (code: string) => (error: unknown) => LayerStoreError.is(error) && error.code === code;

  const round = async (): Promise<void> => {
    await assert.rejects(
      engine.ingest(Readable.from([Buffer.alloc(5000, 'no tar ')]), fresh()),
      refused('ERR_BAD_TAR'),
    );
    const stop = new AbortController();
    const stalled = new Readable({ read() {} });
    setTimeout(() => stop.abort(), 2);
    await assert.rejects(engine.ingest(stalled, fresh({ signal: stop.signal })), { name: 'AbortError' });
    const writer = new Writable({ write: (_chunk, _encoding, done) => done() });
    await engine.ingest({ path: tar }, fresh({ tarSplit: { writer } }));
    await engine.ingest(createReadStream(tar), fresh());
    const stream = await engine.assemble({ tarSplit: { path: record }, tree, diffID, signal });
    stream.read(1);
    stream.destroy();
    await new Promise((resolve) => stream.once('close', resolve));
    await assert.rejects(engine.hashFile(join(dir, 'missing')), refused('ERR_SYSTEM'));
    await engine.changes({ upper: { directories: [layer], whiteouts: 'overlay' }, signal });
    await engine.usage(layer, { signal });
  };

  await round();
  const temporary = records();
  const before = openDescriptors();
  for (let i = 0; i < 15; i++) await round();
  await eventually(() => openDescriptors() <= before, `descriptors go back to ${before}`);
  assert.deepEqual(records(), temporary);
  assert.equal(getEventListeners(signal, 'abort').length, 0);
  await eventually(() => addonThreads().length === 0, 'threads end when there is nothing to do');
});
