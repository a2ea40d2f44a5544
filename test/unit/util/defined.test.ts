import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defined } from '../../../src/util/defined.js';

test('defined leaves out what is undefined, keeps the order and every other value', () => {
  const given: { b: number; a?: string | undefined; c: null; d: string | undefined } = {
    b: 0,
    a: undefined,
    c: null,
    d: '',
  };
  const members: { b: number; a?: string; c: null; d?: string } = defined(given);
  assert.deepEqual(Object.entries(members), [
    ['b', 0],
    ['c', null],
    ['d', ''],
  ]);
  assert.deepEqual(Object.keys(defined({ x: undefined })), []);
});
