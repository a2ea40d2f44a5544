/** The order in which the layers of a chain begin to unpack. */
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import type { ChainLink } from '../../../src/store/types.js';
import { unpackOrder } from '../../../src/store/register.js';
import { diffIDOf, tarOf } from './support.js';

const diffID = diffIDOf(tarOf('a'));
const part = (length: number): ChainLink => ({ tar: { path: '/a.tar', offset: 512, length }, diffID });
const blob = (size: number): ChainLink => ({
  tar: { path: '/blob' },
  diffID,
  descriptor: { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: diffID, size },
});

test('the largest blob is begun first, equal ones in the order of the chain', () => {
  assert.deepEqual(unpackOrder([part(10), part(30), part(10), part(20)]), [1, 3, 0, 2]);
  assert.deepEqual(unpackOrder([blob(1), part(3), blob(2)]), [1, 2, 0]);
});

test('streams, and files of unknown size, keep the order of the chain', () => {
  const stream: ChainLink = { tar: Readable.from([]), diffID };
  assert.deepEqual(unpackOrder([part(10), stream, part(30)]), [0, 1, 2]);
  assert.deepEqual(unpackOrder([part(10), { tar: { path: '/a.tar' }, diffID }, part(30)]), [0, 1, 2]);
});
