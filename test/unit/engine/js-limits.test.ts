/** Limits: defaults, joining, and what the JavaScript engine does when one is reached. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { test } from 'node:test';
import { LayerStoreError } from '../../../src/errors.js';
import { defaultMinFreeBytes, DEFAULT_LIMITS, resolveLimits, resolveLimitsFor } from '../../../src/engine/limits.js';
import type { UnpackLimits } from '../../../src/engine/engine.js';
import { buildTar, gnuLong, storedZstd, type TarEntry } from '../../../src/testing/tar-builder.js';
import { tempDir } from '../../support/temp.js';
import { take } from './js-support.js';

test('the defaults are those that are documented', () => {
  assert.deepEqual(resolveLimits(), {
    maxBytes: Infinity,
    maxEntries: 10_000_000,
    maxRatio: 200,
    maxPathLength: 4096,
    maxPathDepth: 1024,
    maxHeaderBytes: 1 << 20,
    maxXattrBytes: 1 << 20,
    maxXattrs: 1024,
    maxLinkLength: 4095,
    maxWindow: 128 << 20,
    maxKeptBytes: 1 << 30,
  });
  assert.ok(Object.isFrozen(DEFAULT_LIMITS));
});

test('later levels win, and absent ones leave what was', () => {
  const limits = resolveLimits({ maxBytes: 5, maxEntries: 7 }, undefined, {
    maxBytes: Infinity,
    maxEntries: undefined as never,
  });
  assert.equal(limits.maxBytes, Infinity);
  assert.equal(limits.maxEntries, 7);
});

test('what is no limit is refused', () => {
  const wrong: unknown[] = [
    { maxByte: 1 },
    { maxBytes: -1 },
    { maxBytes: 1.5 },
    { maxBytes: NaN },
    { maxBytes: '1' },
    null,
    7,
  ];
  for (const limits of wrong) {
    assert.throws(
      () => resolveLimits(limits as UnpackLimits),
      (error) => LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT'),
      JSON.stringify(limits),
    );
  }
  assert.equal(resolveLimits({ maxRatio: 1.5 }).maxRatio, 1.5);
});

test('the reserve is the smaller of 1 GiB and 5 % of the file system', async (t) => {
  const base = tempDir(t);
  const { blocks, bsize } = await statfs(base);
  const expected = Math.floor(Math.min(1024 ** 3, (blocks * bsize) / 20));
  assert.equal(await defaultMinFreeBytes(base), expected);
  assert.equal((await resolveLimitsFor(base)).minFreeBytes, expected);
  assert.equal((await resolveLimitsFor(base, { minFreeBytes: 3 })).minFreeBytes, 3);
  await assert.rejects(
    defaultMinFreeBytes(`${base}/none`),
    (error) => LayerStoreError.is(error, 'ERR_SYSTEM') && error.errnoName === 'ENOENT',
  );
});

const long = `${'n'.repeat(200)}/${'m'.repeat(200)}`;
const OVER: Record<string, { limits: UnpackLimits; entries: TarEntry[] }> = {
  maxBytes: { limits: { maxBytes: 2000 }, entries: [{ name: 'a', content: 'x'.repeat(5000) }] },
  maxEntries: { limits: { maxEntries: 1 }, entries: [{ name: 'a' }, { name: 'b' }] },
  maxPathLength: { limits: { maxPathLength: 20 }, entries: [{ name: 'p'.repeat(21) }] },
  maxPathDepth: { limits: { maxPathDepth: 3 }, entries: [{ name: 'a/b/c/d' }] },
  maxHeaderBytes: { limits: { maxHeaderBytes: 200 }, entries: [gnuLong('L', long), { name: 'x' }] },
  maxXattrs: {
    limits: { maxXattrs: 1 },
    entries: [{ name: 'a', pax: { 'SCHILY.xattr.user.a': '1', 'SCHILY.xattr.user.b': '2' } }],
  },
  maxXattrBytes: {
    limits: { maxXattrBytes: 10 },
    entries: [{ name: 'a', pax: { 'SCHILY.xattr.user.a': '0123456789' } }],
  },
  maxLinkLength: { limits: { maxLinkLength: 10 }, entries: [{ name: 'a', type: '2', linkname: 'l'.repeat(11) }] },
  maxKeptBytes: { limits: { maxKeptBytes: 3 }, entries: [{ name: '.wh.a', content: 'content' }] },
  minFreeBytes: { limits: { minFreeBytes: Number.MAX_SAFE_INTEGER }, entries: [{ name: 'a' }] },
};

for (const [limit, { limits, entries }] of Object.entries(OVER)) {
  test(`over ${limit}: an error that says which, and no record left`, async (t) => {
    const base = tempDir(t);
    await assert.rejects(take(base, buildTar(entries), { limits }), (error) => {
      assert.ok(LayerStoreError.is(error, 'ERR_LIMIT_EXCEEDED'), String(error));
      assert.equal(error.detail, limit);
      assert.match(error.message, new RegExp(limit));
      return true;
    });
    assert.deepEqual(
      readdirSync(base).filter((name) => name.includes('.gz')),
      [],
    );
    await take(base, buildTar(entries), {
      limits: Object.fromEntries(Object.keys(limits).map((key) => [key, key === 'minFreeBytes' ? 0 : Infinity])),
    });
  });
}

test('a window over maxWindow is refused before memory is taken for it', async (t) => {
  const frame = storedZstd(buildTar([{ name: 'a' }]));
  // Magic, no single segment, a window of 2^(10+21) bytes.
  const huge = Buffer.concat([Buffer.from('28b52ffd00a8', 'hex'), frame.subarray(6)]);
  await assert.rejects(
    take(tempDir(t), huge),
    (error) => LayerStoreError.is(error, 'ERR_LIMIT_EXCEEDED') && error.detail === 'maxWindow',
  );
});
