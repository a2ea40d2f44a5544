/**
 * Odd and hostile archives, each unpacked four ways (test/support/four-ways.ts): by both engines, in overlay form and in a
 * tree that holds its parent's files. What the fuzz in test/property/differential.test.ts found is kept here, made small.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { ErrorCode } from '../../src/errors.js';
import { gnuLong, paxRecords, type TarEntry } from '../../src/testing/tar-builder.js';
import { FourWays, type Archive, type Difference } from '../support/four-ways.js';
import { tempDir } from '../support/temp.js';

const file = (name: string, content = '', more: Partial<TarEntry> = {}): TarEntry => ({ name, content, ...more });
const directory = (name: string): TarEntry => ({ name, type: '5' });
const link = (name: string, linkname: string): TarEntry => ({ name, type: '2', linkname });
const hard = (name: string, linkname: string): TarEntry => ({ name, type: '1', linkname });
const pax = (records: Record<string, string | Uint8Array>): TarEntry => ({
  name: 'p',
  type: 'x',
  content: paxRecords(records),
});
const global = (comment: string): TarEntry => ({ name: 'g', type: 'g', content: paxRecords({ comment }) });
const whiteout = (path: string): TarEntry => file(path.replace(/[^/]*$/, '.wh.$&'));
const opaque = (path: string): TarEntry => file(`${path}.wh..wh..opq`);

/** What all four have to agree on. */
interface Row extends Archive {
  code?: ErrorCode;
  ignoredXattrs?: number;
  ignoredOwners?: number;
  differs?: readonly Difference[];
}

/** All four must only agree. */
const ODD: Record<string, TarEntry[]> = {
  'a file twice': [file('a', 'one'), file('a', 'two!')],
  'a file twice with the same content': [file('a', 'one'), file('a', 'one')],
  'a file three times, the first as the last': [file('a', 'one'), file('a', 'two'), file('a', 'one')],
  'a file, something else of its size, a link to what it was': [
    file('b', 'one'),
    file('a', 'one'),
    file('a', 'two'),
    file('.wh.a'),
    hard('a', 'b'),
  ],
  'a file with content, then a pipe': [file('a', 'one'), { name: 'a', type: '6' }],
  'a file below a directory that becomes a link': [
    directory('d'),
    file('d/a', 'one'),
    link('d', 'e'),
    file('e/a', 'one'),
  ],
  'a file under three spellings': [file('a', 'one'), file('./a', 'two!'), file('/a', '3')],
  'a directory three times': [directory('a/'), directory('a/'), directory('./a')],
  'a file, then a directory': [file('a', 'one'), directory('a'), file('a/b', 'x')],
  'a directory, then a file': [directory('a'), file('a/b', 'x'), file('a', 'file')],
  'a directory, a file, a directory': [
    directory('a'),
    file('a/b', 'x'),
    file('a', 'file'),
    directory('a'),
    file('a/b', 'yy'),
  ],
  'directories that no entry names, below a setgid directory': [
    { ...directory('d'), mode: 0o2755, gid: 5 },
    file('d/e/f/g', 'x'),
    directory('d'),
    file('d/h/i', 'x'),
  ],
  'a whiteout in a setgid directory': [{ ...directory('d'), mode: 0o2755, gid: 5 }, whiteout('d/e')],
  'a whiteout, then the file': [file('.wh.a'), file('a', 'x')],
  'a whiteout, then a directory': [file('.wh.a'), directory('a'), file('a/x', '1')],
  'a whiteout, then something below': [file('.wh.a'), file('a/b', 'y')],
  'a file, then its whiteout': [file('a', 'x'), file('.wh.a')],
  'a file, its whiteout, the file': [file('a', 'x'), file('.wh.a'), file('a', 'zz')],
  'a file, the whiteout of its directory, then something below its name': [
    file('d/e'),
    file('.wh.d'),
    file('d/e/f', 'x'),
  ],
  'a hard link, the whiteout of its directory, then something below its name': [
    file('a', 'x'),
    hard('d/e', 'a'),
    file('.wh.d'),
    file('d/e/f', 'x'),
  ],
  'a directory of its own mode, the whiteout of its parent, then something below its name': [
    { ...directory('d/e'), mode: 0o700, uid: 7 },
    file('.wh.d'),
    file('d/e/f', 'x'),
  ],
  'a directory of its own mode, a file in the place of its parent, then something below its name': [
    { ...directory('d/e'), mode: 0o700 },
    file('d', 'x'),
    directory('d'),
    file('d/e/f', 'x'),
  ],
  'a hard link to a file, the whiteout of its directory, then something below its name': [
    file('d/a'),
    hard('h', 'd/a'),
    file('.wh.d'),
    file('d/a/x'),
  ],
  'a whiteout twice': [file('.wh.a'), file('.wh.a')],
  'a whiteout with content': [file('.wh.a', 'content')],
  'whiteouts of other owners': [file('.wh.a', '', { uid: 7, gid: 8 }), file('.wh.b')],
  'an opaque marker first': [directory('a'), file('a/.wh..wh..opq'), file('a/x', '1')],
  'an opaque marker last': [file('a/x', '1'), file('a/.wh..wh..opq')],
  'an opaque marker twice': [file('a/.wh..wh..opq'), file('a/.wh..wh..opq')],
  'an opaque root': [file('.wh..wh..opq'), file('a', 'x')],
  'bookkeeping of aufs': [file('.wh..wh.plnk/1.2', 'data'), file('.wh..wh.aufs', 'meta')],
  'whiteouts of nothing': [file('.wh.')],
  'whiteouts of a dot': [file('.wh..')],
  'whiteouts of two dots': [file('d/.wh...')],
  'a file through a link': [directory('x'), link('a', 'x'), file('a/f', 'content')],
  'a file through an absolute link': [directory('x'), link('a', '/x'), file('a/f', 'content')],
  'a file through a link that climbs': [
    directory('x'),
    directory('q'),
    link('q/a', '../../../x'),
    file('q/a/f', 'content'),
  ],
  'a file through a dangling link': [link('a', 'nowhere'), file('a/f', 'content')],
  'a file through a circle': [link('a', 'b'), link('b', 'a'), file('a/f', 'content')],
  'a file through a link to a file': [file('t', 'x'), link('a', 't'), file('a/f', 'content')],
  'a link replaced by a file': [link('a', 'x'), file('a', 'file')],
  'a link replaced by a directory': [directory('x'), link('a', 'x'), directory('a'), file('a/f', 'y')],
  'something below a file': [file('a', 'x'), file('a/b', 'y')],
  'a name that climbs out': [file('../a', 'x')],
  'a name that climbs, but stays': [file('b/../a', 'x')],
  'a name that climbs out in the middle': [file('a/../../b', 'x')],
  'absolute names': [file('/abs/a', 'x'), file('/../b', 'y')],
  'two dots': [file('..', 'x')],
  'a file as the root': [file('.', 'x')],
  'the root as a directory': [directory('./'), file('./a', 'x'), directory('.')],
  'an empty name': [file('', 'x')],
  'a hard link': [file('a', 'x'), hard('b', 'a')],
  'a hard link to nothing': [hard('b', 'a')],
  'a hard link out of the layer': [hard('b', '../a')],
  'a hard link to itself': [file('a', 'x'), hard('a', 'a')],
  'a hard link to a directory': [directory('a'), hard('b', 'a')],
  'a hard link to a link': [link('s', 'zz'), hard('b', 's')],
  'a hard link over a file': [file('a', 'x'), file('b', 'yy'), hard('b', 'a')],
  'a hard link twice': [file('a', 'x'), hard('b', 'a'), hard('b', 'a')],
  'a file over the source of a hard link': [file('a', 'xx'), hard('b', 'a'), file('a', 'new')],
  'a hard link through a link': [directory('d'), file('d/f', 'x'), link('s', 'd'), hard('b', 's/f')],
  'a hard link with another mode': [file('a', 'x', { mode: 0o600 }), { ...hard('b', 'a'), mode: 0o755, mtime: 77 }],
  'a device 0:0': [{ name: 'n', type: '3', devmajor: 0, devminor: 0 }],
  devices: [
    { name: 'n', type: '3', devmajor: 1, devminor: 3 },
    { name: 'm', type: '4', devmajor: 7, devminor: 300 },
    { name: 'p', type: '6' },
    { name: 'n', type: '3', devmajor: 1, devminor: 5 },
  ],
  'an unknown type': [{ name: 'v', type: 'V' }],
  'a contiguous file': [file('c', 'cont', { type: '7' })],
  'old types': [file('a', 'x', { type: '\0' }), file('b/', '', { type: '\0' })],
  'two global headers': [global('x'), global('y'), file('a', 'x')],
  'a global header and a file of its name': [global('x'), file('g', 'file')],
  'PAX path, ids, size': [
    pax({ path: 'long/name', mtime: '12.5', uid: '70000', gid: '80000', size: '3' }),
    file('short', 'abc'),
  ],
  'a PAX record that is too long': [{ name: 'p', type: 'x', content: '99 a=b\n' }, file('short', 'abc')],
  'an empty PAX path': [pax({ path: '' }), file('short', 'abc')],
  'a PAX header at the end': [pax({ path: 'zz' })],
  'a PAX path with a NUL': [pax({ path: 'a\0b' }), file('q', 'abc')],
  'a PAX time that is none': [pax({ mtime: 'x' }), file('q', 'abc')],
  xattrs: [
    pax({
      'SCHILY.xattr.user.a': 'b',
      'SCHILY.xattr.user.empty': '',
      'SCHILY.xattr.trusted.overlay.opaque': 'y',
      'SCHILY.xattr.user.overlay.x': 'y',
      'SCHILY.xattr.security.capability': Buffer.from('0100000200040000000000000000000000000000', 'hex'),
    }),
    file('q', 'abc'),
  ],
  'an xattr of a file that is replaced': [pax({ 'SCHILY.xattr.user.a': 'b' }), file('q', 'abc'), file('q', 'new')],
  'a link to nothing at all': [link('s', '')],
  'all bits of a mode': [file('s', 'x', { mode: 0o7755 }), file('uid', 'x', { uid: 1234, gid: 99, mode: 0o6711 })],
  'a component of 256 bytes': [gnuLong('L', 'z'.repeat(256)), file('s', 'x')],
};

const owned = (uid: number, gid = 0): Row => ({ layer: [file('f', 'x', { uid, gid }), directory('d/')] });
const xattr = (name: string, of: TarEntry): Row => ({ layer: [pax({ [`SCHILY.xattr.${name}`]: 'v' }), of] });
const plain = file('f', 'x');
const fifo: TarEntry = { name: 'p', type: '6' };
/** As the kernel keeps an ACL: version 2, then tag, rights and id of each entry; one that says what mode 0644 says. */
const ACL = Buffer.from('0200000001000600ffffffff04000400ffffffff20000400ffffffff', 'hex');
/** With an entry for the user 4, and a mask. */
const OTHER_ACL = Buffer.from(
  '0200000001000700ffffffff02000500040000000400' + '0500ffffffff10000700ffffffff20000000ffffffff',
  'hex',
);

const ROWS: Record<string, Row> = {
  'a uid of -1': { ...owned(-1), ignoredOwners: 1 },
  'a gid of 4294967295': { ...owned(0, 0xffffffff), ignoredOwners: 1 },
  'both ids of -1, of a link': { layer: [{ ...link('s', 't'), uid: -1, gid: 0xffffffff }], ignoredOwners: 1 },
  'both ids of -1, of a directory': { layer: [{ ...directory('d'), uid: -1, gid: -1 }], ignoredOwners: 1 },
  'a whiteout with a uid of -1': { layer: [file('.wh.a', '', { uid: -1 })] },
  'a uid of -1 through PAX': { layer: [pax({ uid: '-1' }), plain], ignoredOwners: 1 },
  'a gid of -2': owned(0, -2),
  'a uid of 4294967294': owned(0xfffffffe),
  'a uid of 2^32': { ...owned(2 ** 32), code: 'ERR_BAD_TAR' },
  'a gid of -2^31 - 1': { ...owned(0, -(2 ** 31) - 1), code: 'ERR_BAD_TAR' },
  'a uid of 2^60 through PAX': { layer: [pax({ uid: String(2n ** 60n) }), plain], code: 'ERR_BAD_TAR' },
  'user.* of a file': xattr('user.a', plain),
  'user.* of a symbolic link': { ...xattr('user.a', link('s', 't')), ignoredXattrs: 1 },
  'user.* of a FIFO': { ...xattr('user.a', fifo), ignoredXattrs: 1 },
  'trusted.* of a symbolic link': xattr('trusted.a', link('s', 't')),
  'an unknown namespace': { ...xattr('foo.bar', plain), ignoredXattrs: 1 },
  'an unknown namespace of a directory': { ...xattr('btrfs.compression', directory('d')), ignoredXattrs: 1 },
  'an attribute without a namespace': { ...xattr('bar', plain), ignoredXattrs: 1 },
  'an attribute without a name': { ...xattr('', plain), ignoredXattrs: 1 },
  'an attribute that is a namespace alone': { ...xattr('user.', plain), ignoredXattrs: 1 },
  'system.* that is no ACL': { ...xattr('system.data', plain), ignoredXattrs: 1 },
  'security.selinux of a file': xattr('security.selinux', plain),
  'security.* of a symbolic link': xattr('security.a', link('s', 't')),
  "overlayfs' own attributes": { ...xattr('trusted.overlay.opaque', directory('d')), ignoredXattrs: 1 },
  'an attribute of a whiteout': xattr('user.a', file('.wh.a')),
  'an attribute of an opaque marker': xattr('user.a', file('d/.wh..wh..opq')),
  'an attribute of the root': xattr('user.a', directory('./')),
  'a value of 70,000 bytes': {
    layer: [pax({ 'SCHILY.xattr.user.a': 'v'.repeat(70_000) }), plain],
    code: 'ERR_SYSTEM',
  },
  'capabilities that are none': { ...xattr('security.capability', plain), code: 'ERR_SYSTEM' },
  'an ACL that is none': { ...xattr('system.posix_acl_access', plain), code: 'ERR_SYSTEM' },
  'a hard link with another mode to a file with an ACL': {
    layer: [pax({ 'SCHILY.xattr.system.posix_acl_access': ACL }), plain, { ...hard('h', 'f'), mode: 0o755 }],
  },
  'a hard link to a file with an ACL, whose entry comes again': {
    layer: [pax({ 'SCHILY.xattr.system.posix_acl_access': ACL }), plain, { ...hard('h', 'f'), mode: 0o755 }, plain],
  },
  'a hard link with the mode that a file had before its ACL': {
    layer: [
      pax({ 'SCHILY.xattr.system.posix_acl_access': ACL }),
      { ...plain, mode: 0o755 },
      { ...hard('h', 'f'), mode: 0o755 },
    ],
  },
  'a directory with an ACL, then again with another mode': {
    layer: [
      pax({ 'SCHILY.xattr.system.posix_acl_access': ACL }),
      directory('d'),
      { ...directory('d'), mode: 0o711 },
      file('d/f', 'x'),
    ],
  },
  'a directory with an ACL, then again with another ACL': {
    layer: [
      pax({ 'SCHILY.xattr.system.posix_acl_access': ACL }),
      directory('d'),
      pax({ 'SCHILY.xattr.system.posix_acl_access': OTHER_ACL }),
      directory('d'),
    ],
  },
  'a hard link to a link with another owner': { layer: [link('s', 't'), { ...hard('h', 's'), uid: 5, gid: 6 }] },
  'a hard link to a link with another time': { layer: [link('s', 't'), { ...hard('h', 's'), mtime: 77 }] },
  'a hard link to a file with another owner, mode and time': {
    layer: [plain, { ...hard('h', 'f'), uid: 5, mode: 0o4711, mtime: 77 }],
  },
  'a hard link to a hard link with another owner': {
    layer: [plain, hard('h', './f'), { ...hard('i', '/h'), uid: 5, mode: 0o600 }],
  },
  'a hard link to a FIFO with another mode': { layer: [fifo, { ...hard('h', 'p'), mode: 0o600 }] },
  'a hard link with attributes of its own': {
    layer: [pax({ 'SCHILY.xattr.user.a': '1' }), plain, pax({ 'SCHILY.xattr.user.b': '2' }), hard('h', 'f')],
  },
  'a hard link that changes an attribute': {
    layer: [pax({ 'SCHILY.xattr.user.a': '1' }), plain, pax({ 'SCHILY.xattr.user.a': '2' }), hard('h', 'f')],
  },
  'a hard link in another directory, with another owner': { layer: [plain, { ...hard('d/h', 'f'), uid: 5 }] },
  'a hard link with another owner, then a file in its place': {
    layer: [plain, { ...hard('h', 'f'), uid: 5, mode: 0o600, mtime: 77 }, file('h', 'new')],
  },
  'a hard link with an attribute of its own, then its whiteout': {
    layer: [plain, pax({ 'SCHILY.xattr.user.b': '2' }), { ...hard('h', 'f'), uid: 5 }, whiteout('h')],
  },
  'a hard link with another owner in a directory that becomes a file': {
    layer: [plain, { ...hard('d/h', 'f'), uid: 5 }, file('d')],
  },
  'a hard link in place of the directory that holds its target': {
    layer: [file('d/f', 'x'), hard('d', 'd/f')],
    code: 'ERR_BAD_TAR',
  },
  'a hard link in place of the link that leads to its target': {
    layer: [file('d/f', 'x'), link('s', 'd'), hard('s', 's/f')],
    code: 'ERR_BAD_TAR',
  },
  'a hard link with another owner to a file with capabilities': {
    layer: [
      pax({ 'SCHILY.xattr.security.capability': Buffer.from('0100000200040000000000000000000000000000', 'hex') }),
      plain,
      { ...hard('h', 'f'), uid: 5 },
    ],
  },
  'two hard links with other owners, both replaced, beside one that is not': {
    layer: [
      plain,
      { ...hard('h', 'f'), uid: 5 },
      hard('i', 'h'),
      { ...hard('j', 'h'), uid: 6 },
      file('h', 'new'),
      file('j'),
    ],
  },
  'a hard link, then another file in place of its target': {
    layer: [plain, { ...hard('h', 'f'), uid: 5 }, file('f', 'new', { uid: 6 })],
  },
  'a file through a link that climbs to the root': { layer: [link('foo', '../'), file('foo/bar', 'x')] },
  'a PAX mtime of 2^63 - 1': { layer: [pax({ mtime: String(2n ** 63n - 1n) }), plain] },
  'a PAX mtime of -2^63': { layer: [pax({ mtime: String(-(2n ** 63n)) }), plain] },
  'a PAX mtime beyond 64 bits': { layer: [pax({ mtime: String(2n ** 63n) }), plain], code: 'ERR_BAD_TAR' },
  'a PAX mtime of nanoseconds': { layer: [pax({ mtime: '1600000000.123456789' }), plain], differs: ['times'] },
  'a PAX mtime of microseconds before 1970': { layer: [pax({ mtime: '-1.000001' }), plain], differs: ['times'] },
  'an mtime of -1': { layer: [file('f', 'x', { mtime: -1 })] },
  'an mtime of 2^35, of everything': {
    layer: [
      { ...directory('d'), mtime: 2 ** 35 },
      { ...link('s', 't'), mtime: 2 ** 35 },
      file('d/f', 'x', { mtime: 2 ** 35 }),
    ],
  },
  'an mtime of half a second before 1970': { layer: [pax({ mtime: '-0.5' }), plain] },
  '3,000 GNU long names in a row': {
    layer: [...Array.from({ length: 3000 }, () => gnuLong('L', 'name')), plain],
    code: 'ERR_LIMIT_EXCEEDED',
  },
  '100 GNU long names in a row': { layer: [...Array.from({ length: 100 }, () => gnuLong('L', 'name')), plain] },
  'a device of major 2^32': { layer: [{ name: 'c', type: '3', devmajor: 2 ** 32, devminor: 1 }], code: 'ERR_BAD_TAR' },
  'a device of major 4096': { layer: [{ name: 'b', type: '4', devmajor: 4096 }], code: 'ERR_BAD_TAR' },
  'a device of minor 2^20': { layer: [{ name: 'b', type: '4', devminor: 2 ** 20 }], code: 'ERR_BAD_TAR' },
  'a device of the highest numbers': { layer: [{ name: 'b', type: '4', devmajor: 4095, devminor: 2 ** 20 - 1 }] },
  'a device of a negative number': {
    layer: [{ name: 'c', type: '3', devmajor: -1, devminor: 3 }],
    code: 'ERR_BAD_TAR',
  },
  'a file with a device number': { layer: [file('f', 'x', { devmajor: 2 ** 32 })] },
  'a sparse size of 2^62': {
    layer: [
      pax({
        'GNU.sparse.major': '0',
        'GNU.sparse.minor': '1',
        'GNU.sparse.map': '',
        'GNU.sparse.numblocks': '0',
        'GNU.sparse.size': String(2n ** 62n),
      }),
      file('f', ''),
    ],
    code: 'ERR_BAD_TAR',
  },
  'a size of 2^62': { layer: [pax({ size: String(2n ** 62n) }), plain], code: 'ERR_BAD_TAR' },
  'a size of 2^62 where none is read': { layer: [pax({ size: String(2n ** 62n) }), directory('d')] },
  'a mode of more than 53 bits': {
    layer: [file('f', 'x', { patch: [{ at: 100, bytes: Uint8Array.of(0x80, 0x7f, 0, 0, 0, 0, 0x09, 0xed) }] })],
  },
  'the two bytes 1f 8b': { layer: Uint8Array.of(0x1f, 0x8b), code: 'ERR_BAD_TAR' },
  'a tar whose first name begins with 1f 8b': { layer: [{ name: Uint8Array.of(0x1f, 0x8b, 0x41), content: 'x' }] },
  'a path of 4,017 bytes': { layer: [gnuLong('L', `${'d'.repeat(250)}/`.repeat(16) + 'e'), file('f', 'x')] },
  'a link at a path of 4,017 bytes': { layer: [gnuLong('L', `${'d'.repeat(250)}/`.repeat(16) + 'e'), link('f', 'x')] },
  'a whiteout through a link to nothing': { layer: [link('s', '/nowhere'), file('s/.wh.f')], code: 'ERR_BAD_TAR' },
  'a whiteout through a link': {
    layer: [directory('d'), file('d/f', 'x'), link('s', 'd'), file('s/.wh.f')],
    differs: ['listing'],
  },
  "a whiteout through a parent's link": {
    parent: [directory('d'), file('d/f', 'x'), link('baselink', 'd')],
    layer: [file('baselink/.wh.f')],
    differs: ['listing'],
  },
  "a file through a parent's link": {
    parent: [directory('d'), file('d/f', 'x'), link('baselink', 'd')],
    layer: [file('baselink/g', 'new')],
  },
  "a file through a parent's link to nothing": { parent: [link('s', '/nowhere')], layer: [file('s/f', 'x')] },
  "a file below a parent's file": { parent: [file('a', 'x')], layer: [file('a/b', 'y')] },
  "an opaque marker below a parent's link": {
    parent: [directory('d'), file('d/f', 'x'), link('s', 'd')],
    layer: [opaque('s/')],
  },
  "an opaque marker in a parent's directory": {
    parent: [directory('d'), file('d/f', 'x'), file('d/g', 'x')],
    layer: [opaque('d/'), file('d/g', 'new')],
  },
  "a hard link through a parent's link": {
    parent: [directory('d'), link('s', 'd')],
    layer: [file('d/f', 'x'), hard('h', 's/f')],
    code: 'ERR_BAD_TAR',
  },
  "a hard link to a parent's file": { parent: [plain], layer: [hard('h', 'f')], code: 'ERR_BAD_TAR' },
  "a link of its own to a parent's directory": {
    parent: [directory('d')],
    layer: [link('s', 'd'), file('s/f', 'x')],
    code: 'ERR_BAD_TAR',
  },
  "a link of its own to a parent's directory in which it has a file": {
    parent: [directory('d/e')],
    layer: [link('s', 'd'), file('d/g', 'x'), file('s/e/f', 'x')],
  },
  "a link of its own into a parent's directory in which it has a file": {
    parent: [directory('d/e')],
    layer: [link('s', 'd/e'), file('d/g', 'x'), file('s/f', 'x')],
    code: 'ERR_BAD_TAR',
  },
  'a hard link through a circle of links': {
    layer: [link('a', 'b'), link('b', 'a'), hard('h', 'a/f')],
    code: 'ERR_BAD_TAR',
  },
  'a directory that is removed and made again': {
    layer: [{ ...directory('d'), mtime: 5 }, file('d', 'x'), whiteout('d'), file('d/f', 'x')],
  },
  'an empty file that is removed through a link': {
    layer: [file('d/f'), link('s', 'd'), file('s/.wh.f')],
    differs: ['listing'],
  },
  'an empty file that is replaced through a link': {
    layer: [file('d/f'), link('s', 'd'), { ...fifo, name: 's/f' }],
  },
  'a file in a directory that becomes a link to one with a directory of its name': {
    layer: [file('d/e'), link('d', 's'), file('s/e/g')],
  },
  'a file in a directory that becomes a link to one with a file of its content': {
    layer: [file('d/e', 'x', { uid: 5 }), link('d', 's'), file('s/q', 'x'), hard('s/e', 's/q')],
  },
  'marks in a directory that becomes a link': {
    layer: [file('d/.wh.e'), opaque('d/'), link('d', 's'), file('s/e', 'x')],
  },
  'a directory below one that becomes a file': { layer: [directory('a/b'), file('a/f'), file('a', 'x')] },
  'a default ACL, then a file below': {
    layer: [
      pax({
        'SCHILY.xattr.system.posix_acl_default': Buffer.from(
          '0200000001000700ffffffff02000700050000000400 0500ffffffff10000700ffffffff20000500ffffffff'.replace(/ /g, ''),
          'hex',
        ),
      }),
      directory('d'),
      file('d/f', 'x'),
      directory('d/e'),
    ],
  },
  "a directory over a parent's link": {
    parent: [link('s', 'd'), directory('d')],
    layer: [directory('s'), file('s/f', 'x')],
  },
  "a directory over a parent's file": { parent: [plain], layer: [directory('f')] },
  "a file over a parent's directory": { parent: [directory('d'), file('d/f', 'x')], layer: [file('d', 'x')] },
  "a whiteout, then a directory of the parent's name": {
    parent: [directory('d'), file('d/f', 'x')],
    layer: [whiteout('d'), directory('d'), file('d/g', 'y')],
  },
  "a whiteout, then something below the parent's name": {
    parent: [directory('d'), file('d/f', 'x')],
    layer: [whiteout('d'), file('d/g', 'y')],
  },
  "a file, then a directory of the parent's name": {
    parent: [directory('d'), file('d/f', 'x')],
    layer: [file('d'), directory('d'), file('d/g', 'y')],
  },
  "a link, then a directory of the parent's name": {
    parent: [directory('d'), file('d/e/f', 'x')],
    layer: [directory('d'), link('d', 'e'), directory('d'), directory('d/e')],
  },
  "a whiteout in the parent's directory, then an opaque marker above": {
    parent: [file('d/e/f', 'x'), file('d/e/g', 'x')],
    layer: [whiteout('d/e/f'), opaque('d/')],
    differs: ['listing'],
  },
  "an opaque marker in the parent's directory, then one above": {
    parent: [file('d/e/f', 'x')],
    layer: [opaque('d/e/'), opaque('d/')],
  },
  "something below the parent's name, then its whiteout": {
    parent: [directory('d'), file('d/f', 'x')],
    layer: [file('d/g', 'y'), whiteout('d')],
  },
  'a hard link to a whiteout': { layer: [file('.wh.b'), hard('a', 'b')], code: 'ERR_BAD_TAR' },
  'a whiteout in a directory that becomes a file': { layer: [file('d/.wh.e'), file('d')] },
  'marks in a directory that becomes a file, then a directory': {
    layer: [file('d/.wh.e'), opaque('d/'), file('d'), directory('d')],
  },
  'a whiteout in a directory that no layer below has': {
    layer: [directory('d'), file('d/.wh.f')],
    differs: ['listing'],
  },
  'a file in a directory that only the parent names': {
    parent: [{ ...directory('d'), mode: 0o700, uid: 5 }],
    layer: [file('d/f', 'x')],
    differs: ['directories'],
  },
  'an opaque marker at the root': {
    parent: [plain, directory('d')],
    layer: [opaque(''), file('g', 'x')],
    differs: ['content'],
  },
  ...Object.fromEntries(
    Object.entries({
      xz: Buffer.from('fd377a585a000004e6d6b4460200210116000000742fe5a3', 'hex'),
      bzip2: Buffer.from(
        '425a68393141592653594eece83600000251800010400006449080200031064c4101a7a9a580bb9431f8bb9229c28482776741b0',
        'hex',
      ),
      compress: Buffer.from('1f9d9068cab06ce102', 'hex'),
      lzip: Buffer.from('4c5a495001', 'hex'),
      lz4: Buffer.from('04224d1864', 'hex'),
    }).map(([name, layer]): [string, Row] => [`a source of ${name}`, { layer, code: 'ERR_BAD_COMPRESSION' }]),
  ),
  'a tar whose first name is like bzip2': { layer: [file('BZh91AY', 'x')] },
};

let fourWays: FourWays;
test.before(async () => {
  fourWays = await FourWays.open();
});

for (const [name, layer] of Object.entries(ODD)) {
  test(name, async (t) => {
    await fourWays.check({ layer }, tempDir(t, 'agree'));
  });
}

for (const [name, { code, ignoredXattrs = 0, ignoredOwners = 0, differs = [], ...archive }] of Object.entries(ROWS)) {
  test(name, async (t) => {
    const { result, differences, ...agreed } = await fourWays.check(archive, tempDir(t, 'agree'));
    assert.equal(agreed.code, code);
    assert.deepEqual([...differences.keys()], differs, [...differences.values()].join('\n'));
    if (code !== undefined) return;
    assert.equal(result?.ignoredXattrs, ignoredXattrs);
    assert.equal(result.ignoredOwners, ignoredOwners);
  });
}

/** A row's outcome in the words of the table in docs/security.md. */
function outcomeOf({ code, ignoredXattrs, ignoredOwners, differs = [] }: Row): string {
  if (code !== undefined) return `\`${code}\``;
  const told = [
    'taken',
    ...(ignoredXattrs === undefined ? [] : [`\`ignoredXattrs\` ${ignoredXattrs}`]),
    ...(ignoredOwners === undefined ? [] : [`\`ignoredOwners\` ${ignoredOwners}`]),
    ...(differs.length === 0 ? [] : [`differs: ${differs.join(', ')}`]),
  ];
  return told.join('; ');
}

test('docs/security.md tells what cannot be kept and what differs', () => {
  const page = readFileSync(new URL('../../docs/security.md', import.meta.url), 'utf8');
  const section = page.split('\n## ').find((text) => text.startsWith('What cannot be kept'));
  const documented = new Map<string, string>();
  for (const line of section?.split('\n') ?? []) {
    const [, archive = '', outcome = ''] = line.split('|').map((cell) => cell.trim());
    if (line.startsWith('|') && archive !== 'archive' && !archive.startsWith('-')) documented.set(archive, outcome);
  }
  assert.ok(documented.size > 0, 'the table is there');
  for (const [archive, outcome] of documented) {
    const row = ROWS[archive];
    assert.ok(row !== undefined, `"${archive}" is tested`);
    assert.equal(outcome, outcomeOf(row), archive);
  }
  const told = [...documented.values()].join('\n');
  for (const { differs = [] } of Object.values(ROWS))
    for (const kind of differs) assert.match(told, new RegExp(`differs: .*\\b${kind}\\b`));
});
