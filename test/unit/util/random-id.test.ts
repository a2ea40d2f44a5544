import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomBytes, randomID } from '../../../src/util/random-id.js';

test('no part of the stock is given out twice, also where it is filled anew', () => {
  const seen = new Set<string>();
  for (let i = 0; i < 2000; i++) {
    const id = randomID();
    assert.match(id, /^[0-9a-f]{64}$/);
    seen.add(id);
    seen.add(randomID(17));
  }
  assert.equal(seen.size, 4000);
});

test('what was given out stays as it was, and all of the stock can be asked for', () => {
  const first = randomBytes(32);
  const text = first.toString('hex');
  assert.equal(randomBytes(4096).length, 4096);
  for (let i = 0; i < 200; i++) randomID();
  assert.equal(first.toString('hex'), text);
});
