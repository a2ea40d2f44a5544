/** What is kept of what broken pulls left. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { PartialBlobs } from '../../../src/image/partial-blobs.js';
import { tempDir } from '../../support/temp.js';

const SIZE = 64 * 1024;

/** Files of {@link SIZE} bytes, named by their blobs' last digit: a higher one is newer. Each has a note of its state. */
function left(t: TestContext, digits: readonly number[]): string {
  const store = tempDir(t, 'partial');
  const directory = join(store, 'partial');
  mkdirSync(directory);
  for (const digit of digits) {
    const path = join(directory, fileOf(digit));
    writeFileSync(path, Buffer.alloc(SIZE, 1));
    writeFileSync(`${path}.state`, '0');
    utimesSync(path, digit, digit);
  }
  return store;
}

const hexOf = (digit: number): string => String(digit).padStart(64, '0');
const fileOf = (digit: number): string => `sha256-${hexOf(digit)}.partial`;
const names = (store: string): string[] => readdirSync(join(store, 'partial')).sort();
const withStates = (digits: readonly number[]): string[] =>
  digits.flatMap((digit) => [fileOf(digit), `${fileOf(digit)}.state`]);

describe('partial files', () => {
  for (const [what, cap, kept] of [
    ['all, at the cap', 4 * SIZE, [1, 2, 3, 4]],
    ['the newest, over the cap', 4 * SIZE - 1, [2, 3, 4]],
    ['the newest, far over the cap', 2 * SIZE, [3, 4]],
    ['none, where the cap is smaller than any', SIZE - 1, []],
  ] as const) {
    it(`keep ${what}`, async (t) => {
      const store = left(t, [3, 1, 4, 2]);
      await new PartialBlobs(store, cap).prepare(0, 0);
      assert.deepEqual(names(store), withStates(kept));
    });
  }

  it('that a pull uses stay, and do not count', async (t) => {
    const store = left(t, [1, 2, 3]);
    const partial = new PartialBlobs(store, SIZE);
    const { release } = partial.claim(`sha256:${hexOf(1)}`);
    await partial.prepare(0, 0);
    assert.deepEqual(names(store), withStates([1, 3]));
    release();
    await partial.prepare(0, 0);
    assert.deepEqual(names(store), withStates([3]));
  });

  it('are not begun where the disk would be left without its reserve', async (t) => {
    const store = left(t, []);
    await assert.rejects(new PartialBlobs(store, SIZE).prepare(2 ** 52, undefined), {
      code: 'ERR_LIMIT_EXCEEDED',
      message:
        /^fetching 4503599627370496 bytes would leave less than the reserve of [0-9]+ bytes free below ".*"; make room/,
    });
  });
});
