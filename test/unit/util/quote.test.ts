import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestMismatch } from '../../../src/errors.js';
import { isPlainName } from '../../../src/util/plain-name.js';
import { formatValue, quote } from '../../../src/util/quote.js';

const values: [value: unknown, text: string][] = [
  ['a "b"\n', '"a \\"b\\"\\n"'],
  ['', '""'],
  [12, '12'],
  [undefined, 'undefined'],
  [null, 'null'],
  [Symbol('x'), 'Symbol(x)'],
  [[1], 'a value of type array'],
  [new Date(0), 'a value of type Date'],
  [Object.create(null), 'a value of type object'],
];

test('values are quoted for messages', () => {
  for (const [value, text] of values) assert.equal(formatValue(value), text);
});

test('a long text keeps its beginning and its end', () => {
  assert.equal(quote('x'.repeat(198)), `"${'x'.repeat(198)}"`);
  assert.equal(quote(`${'b'.repeat(1000)}${'e'.repeat(39)}`), `"${'b'.repeat(109)}…${'e'.repeat(39)}"`);
  assert.equal(quote('\0'.repeat(100)).length, 151);
});

test('plain names are those that Docker takes', () => {
  for (const name of ['a', 'A.b_c-1', '0'.repeat(128)]) assert.equal(isPlainName(name), true, name);
  for (const name of ['', '.', '..', '-a', '_a', 'a/b', 'a\n', 'é', '0'.repeat(129), 1, undefined])
    assert.equal(isPlainName(name), false, String(name));
});

test('a mismatch says what was found, what was promised, and what to do', () => {
  const error = digestMismatch('the size of the blob in bytes', 3, 4);
  assert.equal(error.code, 'ERR_DIGEST_MISMATCH');
  assert.equal(
    error.message,
    'the size of the blob in bytes is 3, not 4: it is another one, or was damaged on its way',
  );
  assert.match(
    digestMismatch('the digest of "x"', undefined, 'y', 'push it again').message,
    / is not known, not y: push/,
  );
});
