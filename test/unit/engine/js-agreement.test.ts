/** Native and JavaScript engine held against each other on what no sane archiver writes: same results, or same refusals. */
import { test } from 'node:test';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { checkSameDifference, checkSameIngest } from '../../../src/testing/engine-agreement.js';
import { buildTar, gnuLong, paxRecords, type TarEntry } from '../../../src/testing/tar-builder.js';
import { tempDir } from '../../support/temp.js';
import { engine, samples } from './js-support.js';

const engines = [loadNativeEngine(), engine] as const;
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

const CASES: Record<string, TarEntry[]> = {
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
  'a whiteout, then the file': [file('.wh.a'), file('a', 'x')],
  'a whiteout, then a directory': [file('.wh.a'), directory('a'), file('a/x', '1')],
  'a whiteout, then something below': [file('.wh.a'), file('a/b', 'y')],
  'a file, then its whiteout': [file('a', 'x'), file('.wh.a')],
  'a file, its whiteout, the file': [file('a', 'x'), file('.wh.a'), file('a', 'zz')],
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

for (const [name, entries] of Object.entries(CASES)) {
  for (const whiteouts of ['overlay', 'plain'] as const) {
    test(`${name}, ${whiteouts}`, async (t) => {
      await checkSameIngest(engines, buildTar(entries), tempDir(t), { wholeSeconds: true, whiteouts });
    });
  }
}

for (const { name, bytes } of samples()) {
  test(`sample ${name}`, async (t) => {
    await checkSameIngest(engines, bytes, tempDir(t), { wholeSeconds: true });
  });
}

const two = buildTar([file('a', 'x'.repeat(1000)), file('b', 'y')]);
const ODD: Record<string, Buffer> = {
  ...Object.fromEntries(
    [100, 512, 513, 600, 1536, 1537, 2048, two.length - 1024, two.length - 512, two.length - 1].map((cut) => [
      `cut at ${String(cut)}`,
      two.subarray(0, cut),
    ]),
  ),
  'garbage behind the end': Buffer.concat([two, Buffer.from('trailing garbage')]),
  'a block of zeros in front': Buffer.concat([Buffer.alloc(512), two]),
  'an end in front': Buffer.concat([Buffer.alloc(1024), two]),
  noise: Buffer.from('hello world'.repeat(100)),
};
for (const [name, tar] of Object.entries(ODD)) {
  test(name, async (t) => {
    await checkSameIngest(engines, tar, tempDir(t), { wholeSeconds: true });
  });
}

test('differences between stacks: changes, sizes, tars, committed layers', async (t) => {
  const base = tempDir(t);
  const take = async (name: string, entries: TarEntry[]): Promise<string> => {
    const tree = join(base, name);
    mkdirSync(tree);
    await engine.ingest(Readable.from([buildTar(entries)]), { directory: tree, whiteouts: 'overlay' });
    return tree;
  };
  const low = await take('low', [
    directory('d'),
    file('d/a', '1'),
    file('d/b', '2'),
    directory('gone'),
    file('gone/x', 'x'),
    directory('o/s'),
    file('o/s/k', 'k'),
    file('o/z', 'z'),
    file('t', 't'),
  ]);
  const middle = await take('middle', [
    directory('d'),
    file('d/.wh.a'),
    file('d/c', '3'),
    file('o/.wh..wh..opq'),
    file('o/n', 'n'),
  ]);
  const top = await take('top', [
    directory('d'),
    file('d/a', 'again'),
    file('.wh.gone'),
    link('t', 'elsewhere'),
    file('big', 'y'.repeat(70_000), { mode: 0o6755 }),
    hard('big2', 'big'),
    file('e/\xe9'),
    { name: 'fifo', type: '6' },
  ]);
  const plain = await take('plain', [
    directory('d'),
    file('d/a', '1'),
    file('d/new', '5'),
    directory('o/s'),
    file('t', 'other'),
    file('gone', 'a file now'),
  ]);
  execFileSync('/usr/bin/setfattr', ['-n', 'user.note', '-v', 'x', join(top, 'big')]);
  const stack = (...directories: string[]) => ({ directories, whiteouts: 'overlay' as const });
  const requests = [
    { upper: stack(top), lower: stack(middle, low) },
    { upper: stack(top, middle), lower: stack(low) },
    { upper: stack(top, middle, low) },
    {
      upper: { directories: [plain], whiteouts: 'plain' as const },
      lower: { directories: [low], whiteouts: 'plain' as const },
    },
  ];
  for (const [index, request] of requests.entries()) {
    const directory = join(base, `d${String(index)}`);
    mkdirSync(directory);
    await checkSameDifference(engines, request, directory);
  }
});
