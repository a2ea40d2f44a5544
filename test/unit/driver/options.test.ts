import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  contextOption,
  mountProfile,
  parseDriverOptions,
  parseMountOptions,
  parseSize,
  parseStorageOpt,
} from '../../../src/driver/options.js';

const INVALID = { code: 'ERR_INVALID_ARGUMENT' };

test("sizes are Docker's: powers of 1,024, with and without units", () => {
  assert.equal(parseSize('10G', 'size'), 10 * 1024 ** 3);
  assert.equal(parseSize('512', 'size'), 512);
  assert.equal(parseSize('1.5 TiB', 'size'), 1.5 * 1024 ** 4);
  assert.equal(parseSize('7kb', 'size'), 7 * 1024);
  assert.equal(parseSize('32m', 'size'), 32 * 1024 ** 2);
  for (const bad of ['', 'G', '-1', '10X', '1e3', '10 GB more', '9999999999999999P', ' 5', '0x10']) {
    assert.throws(() => parseSize(bad, 'the size'), INVALID, bad);
  }
});

test('each mount option is checked, unknown ones and stray commas are refused', () => {
  assert.deepEqual(
    [...parseMountOptions('volatile,metacopy=on,redirect_dir=on,index=off,xino=auto,nodev,noexec,nosuid')],
    [
      ['volatile', undefined],
      ['metacopy', 'on'],
      ['redirect_dir', 'on'],
      ['index', 'off'],
      ['xino', 'auto'],
      ['nodev', undefined],
      ['noexec', undefined],
      ['nosuid', undefined],
    ],
  );
  assert.equal(parseMountOptions('').size, 0);
  for (const bad of [
    'volatile,',
    ',volatile',
    'lowerdir=/etc',
    'upperdir=/x',
    'metacopy',
    'metacopy=yes',
    'index=',
    'volatile=on',
    'nodev=1',
    'redirect_dir=true',
    'xino=maybe',
    'index=on,index=off',
    'nodev,nodev',
    'toString',
    '__proto__=on',
    'context="a"',
    'metacopy=on,redirect_dir=off',
    'redirect_dir=nofollow,metacopy=on',
    ' nodev',
    'NODEV',
  ]) {
    assert.throws(() => parseMountOptions(bad), INVALID, bad);
  }
});

test('driver options: known keys only', () => {
  assert.deepEqual(parseDriverOptions({ 'overlay2.size': '1G' }).size, 1024 ** 3);
  assert.equal(parseDriverOptions({ 'overlay2.size': '0' }).size, undefined);
  assert.equal(parseDriverOptions({ 'overlay2.mountopt': 'nodev' }).mountOptions.has('nodev'), true);
  for (const bad of [
    { 'overlay2.override_kernel_check': 'true' },
    { size: '1G' },
    { 'vfs.size': '1G' },
    { constructor: 'x' },
  ]) {
    assert.throws(() => parseDriverOptions(bad), INVALID, JSON.stringify(bad));
  }
});

test('storage options of a layer: only a size', () => {
  assert.equal(parseStorageOpt({ size: '10G' }), 10 * 1024 ** 3);
  assert.equal(parseStorageOpt({ size: '0' }), undefined);
  assert.equal(parseStorageOpt(undefined), undefined);
  assert.throws(() => parseStorageOpt({ inodes: '5' }), INVALID);
});

test('a profile leaves away what a mount without an upper directory cannot have', () => {
  const chosen = parseMountOptions('volatile,index=on,redirect_dir=on,nosuid');
  assert.deepEqual(mountProfile(chosen, true), {
    writable: ['index=on', 'volatile', 'redirect_dir=on', 'nosuid'],
    readOnly: ['index=off', 'redirect_dir=follow', 'nosuid'],
    volatile: true,
    index: true,
  });
  assert.deepEqual(mountProfile(new Map(), true).writable, ['index=off']);
  const off = ['redirect_dir', 'metacopy'];
  const plain = mountProfile(new Map(), true, off);
  assert.deepEqual(plain.writable, ['index=off', 'redirect_dir=off', 'metacopy=off']);
  assert.deepEqual(plain.readOnly, ['index=off'], 'what lies below was made by others');
  assert.deepEqual(mountProfile(parseMountOptions('redirect_dir=on'), false, off).writable, [
    'redirect_dir=on',
    'metacopy=off',
  ]);
  assert.deepEqual(mountProfile(parseMountOptions('metacopy=on'), false, off).writable, ['metacopy=on']);
  assert.deepEqual(mountProfile(new Map(), false).writable, []);
});

test('a mount label cannot leave its quotes', () => {
  assert.equal(
    contextOption('system_u:object_r:container_file_t:s0:c1,c2'),
    'context="system_u:object_r:container_file_t:s0:c1,c2"',
  );
  for (const bad of ['a"b', 'a b', '', 'a\nb', 'é', 'x'.repeat(2000)])
    assert.throws(() => contextOption(bad), INVALID, bad);
});
