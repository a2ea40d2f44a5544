/** Checksums, tar-split lines and records of the JavaScript engine. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { LayerStoreError } from '../../../src/errors.js';
import { Crc64, crc64 } from '../../../src/engine/js/crc64.js';
import { formatSplitEntry, parseSplitEntry } from '../../../src/engine/js/tar-split.js';
import { directoryGetter } from '../../../src/testing/engine-suite-tars.js';
import { buildTar } from '../../../src/testing/tar-builder.js';
import { tempDir } from '../../support/temp.js';
import { engine, give, recordLines, recordNames, take } from './js-support.js';

test('CRC-64/ISO gives the published check, in any cut', () => {
  assert.equal(crc64(Buffer.from('123456789')).toString('hex'), 'b90956c775a41001');
  assert.equal(crc64(Buffer.alloc(0)).toString('hex'), '0000000000000000');
  // The definition, bit by bit.
  const bytes = Buffer.from(Array.from({ length: 1000 }, (_, index) => (index * 7919) & 255));
  let slow = 0xffffffffffffffffn;
  for (const byte of bytes) {
    slow ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) slow = (slow & 1n) === 0n ? slow >> 1n : (slow >> 1n) ^ 0xd800000000000000n;
  }
  const expected = (slow ^ 0xffffffffffffffffn).toString(16).padStart(16, '0');
  for (const cut of [0, 1, 7, 8, 9, 500, 1000]) {
    assert.equal(
      new Crc64().update(bytes.subarray(0, cut)).update(bytes.subarray(cut)).digest().toString('hex'),
      expected,
    );
  }
});

test('lines of a record are those of tar-split, Go escapes included', () => {
  const lines: [Parameters<typeof formatSplitEntry>[0], string][] = [
    [{ type: 2, payload: Buffer.from('abc') }, '{"type":2,"payload":"YWJj","position":0}\n'],
    [
      { type: 1, name: 'a', size: 9, crc: crc64(Buffer.from('123456789')) },
      '{"type":1,"name":"a","size":9,"payload":"uQlWx3WkEAE=","position":0}\n',
    ],
    [{ type: 1, name: 'd/', size: 0, crc: undefined }, '{"type":1,"name":"d/","payload":null,"position":0}\n'],
    [{ type: 1, name: '', size: 0, crc: undefined }, '{"type":1,"payload":null,"position":0}\n'],
    [{ type: 1, name: 'n\xff', size: 0, crc: undefined }, '{"type":1,"name_raw":"bv8=","payload":null,"position":0}\n'],
    [
      { type: 1, name: Buffer.from('<&>\u2028"\\\n\u0001é').toString('latin1'), size: 0, crc: undefined },
      '{"type":1,"name":"\\u003c\\u0026\\u003e\\u2028\\"\\\\\\n\\u0001é","payload":null,"position":0}\n',
    ],
  ];
  for (const [entry, line] of lines) {
    assert.equal(formatSplitEntry(entry, 0), line);
    assert.deepEqual(parseSplitEntry(line, 0), entry);
  }
});

test('a damaged record is ERR_LAYER_CORRUPT, whichever byte is hit', async (t) => {
  const base = tempDir(t);
  const taken = await take(base, buildTar([{ name: 'a', content: 'content' }]));
  const good = gunzipSync(readFileSync(taken.record));
  const attempts: Buffer[] = [
    gzipSync('not json\n'),
    gzipSync('{"type":3,"position":0}\n'),
    gzipSync('[1]\n'),
    Buffer.from('no gzip'),
    readFileSync(taken.record).subarray(0, 30),
  ];
  for (let at = 0; at < good.length; at += 97) {
    const damaged = Buffer.from(good);
    damaged[at] = (damaged[at] ?? 0) ^ 0x11;
    attempts.push(gzipSync(damaged));
  }
  for (const bytes of attempts) {
    writeFileSync(taken.record, bytes);
    await assert.rejects(
      give(taken),
      (error) => LayerStoreError.is(error, 'ERR_LAYER_CORRUPT') || LayerStoreError.is(error, 'ERR_UNSAFE_PATH'),
    );
  }
});

test('names that entries share, and contents that are gone, end up in the record itself', async (t) => {
  const base = tempDir(t);
  const tar = buildTar([
    { name: 'a', content: 'first' },
    { name: 'a', content: 'second one' },
    { name: 'd/', type: '5' },
    { name: 'd/x', content: 'below' },
    { name: 'd', content: 'a file now' },
    { name: 'e', content: 'hidden' },
    { name: '.wh.e' },
  ]);
  const taken = await take(base, tar);
  assert.ok((await give(taken)).equals(tar));
  assert.deepEqual(recordNames(taken.record), ['a', 'd/', '.wh.e']);
  recordLines(taken.record).forEach((line, index) => assert.equal((line as { position?: number }).position, index));
  // Nothing is left beside tree and record.
  assert.equal(readdirSync(base).length, 2);
  await assert.rejects(
    take(base, tar, { limits: { maxKeptBytes: 3 } }),
    (error) => LayerStoreError.is(error, 'ERR_LIMIT_EXCEEDED') && error.detail === 'maxKeptBytes',
  );
});

test('a record goes into a stream, and comes from one; files come from a getter', async (t) => {
  const base = tempDir(t);
  const tar = buildTar([
    { name: 'a', content: 'x'.repeat(200_000) },
    { name: 'b', content: 'y' },
    { name: 'b', content: 'again' },
  ]);
  const writer = new PassThrough();
  const lines = text(writer);
  const { result, tree } = await take(base, tar, { tarSplit: { writer } });
  const opened: string[] = [];
  const getter = {
    open: async (name: Uint8Array) => {
      opened.push(Buffer.from(name).toString());
      return directoryGetter(tree).open(name);
    },
    close: async () => undefined,
  };
  const back = await engine.assemble({ tarSplit: Readable.from([await lines]), tree: getter, diffID: result.diffID });
  assert.ok((await buffer(back)).equals(tar));
  assert.deepEqual(opened.sort(), ['a', 'b']);
});

test('contents that were changed are found, and named', async (t) => {
  const base = tempDir(t);
  const taken = await take(
    base,
    buildTar([
      { name: 'd/small', content: 'abc' },
      { name: 'big', content: 'z'.repeat(300_000) },
    ]),
  );
  for (const [name, content] of [
    ['d/small', 'abd'],
    ['d/small', 'ab'],
    ['d/small', 'abcd'],
    ['big', 'y'.repeat(300_000)],
  ] as const) {
    const path = join(taken.tree, name);
    const before = readFileSync(path);
    writeFileSync(path, content);
    await assert.rejects(give(taken), (error) => LayerStoreError.is(error, 'ERR_LAYER_CORRUPT') && error.path === name);
    const problems = await engine.verifyTree({
      tarSplit: { path: taken.record },
      tree: directoryGetter(taken.tree),
      whiteouts: 'overlay',
      diffID: taken.result.diffID,
    });
    assert.ok(
      problems.some((problem) => problem.path === `/${name}` && !problem.cosmetic && /content|size/.test(problem.what)),
      JSON.stringify(problems),
    );
    writeFileSync(path, before);
  }
});
