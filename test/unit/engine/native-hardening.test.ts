/** The addon is built so that a mistake in it is hard to make use of. The same holds for `build-cmake/`, which is built from the same flags. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { loadBinding } from '../../../src/engine/native/load.js';

const path = (loadBinding() as unknown as { path: string }).path;
const readelf = (...flags: string[]): string => execFileSync('readelf', ['-W', ...flags, path], { encoding: 'utf8' });
const wanted = execFileSync('nm', ['-D', '--undefined-only', path], { encoding: 'utf8' });

test('what is relocated is read-only, and all of it is bound at load', () => {
  assert.match(readelf('-l'), /GNU_RELRO/);
  assert.match(readelf('-d'), /BIND_NOW/);
  assert.doesNotMatch(readelf('-d'), /TEXTREL|RPATH|RUNPATH/);
});

test('no segment can be written and executed, the stack neither', () => {
  const segments = readelf('-l');
  assert.match(segments, /GNU_STACK.* RW +0x/);
  assert.doesNotMatch(segments, /^ +(LOAD|GNU_STACK) .* RWE? *E +0x/m);
});

test('functions with buffers guard their stack, and calls of libc check sizes', () => {
  assert.match(wanted, / __stack_chk_fail(@|$)/m);
  assert.match(wanted, / __(memcpy|memset|read|pread|snprintf|vsnprintf|readlinkat|memmove|longjmp|fdelt)_chk(@|$)/m);
});

test('it is position-independent and has no debug symbols that are exported', () => {
  assert.match(readelf('-h'), /Type:\s+DYN/);
  const defined = execFileSync('nm', ['-D', '--defined-only', path], { encoding: 'utf8' }).trim().split('\n');
  for (const line of defined) assert.match(line, / (napi_register_module_v1|node_api_module_get_api_version_v1)(@|$)/);
});
