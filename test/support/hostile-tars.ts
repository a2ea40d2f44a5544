/**
 * Hostile archives for fast-check: few names, so that entries meet; every type, odd numbers, links everywhere. What makes
 * an archive refused is rare in each entry, so that about half of the archives are taken, and their trees compared.
 */
import fc from 'fast-check';
import { gnuLong, paxRecords, type TarEntry } from '../../src/testing/tar-builder.js';
import type { Archive } from './four-ways.js';

const NAMES = ['a', 'b', 'd', 'd/a', 'd/e', 'd/e/f', 's', 's/a', 's/e/g'];
const anyPath = fc.oneof(
  { weight: 80, arbitrary: fc.constantFrom(...NAMES) },
  { weight: 8, arbitrary: fc.constantFrom('/a', './d/a', 'd/../b', 'n\xff', `${'l'.repeat(130)}/m`) },
  { weight: 1, arbitrary: fc.constantFrom('./', '../x', 'a/../../b', '') },
);
/** Whiteouts of every kind, also of what this archive makes. */
const marker = fc.oneof(
  { weight: 9, arbitrary: fc.constantFrom(...NAMES).map((path) => path.replace(/[^/]*$/, '.wh.$&')) },
  {
    weight: 9,
    arbitrary: fc.constantFrom('d/.wh..wh..opq', 's/.wh..wh..opq', 'd/e/.wh..wh..opq', '.wh..wh.plnk/x', '.wh.d/a'),
  },
  { weight: 1, arbitrary: fc.constantFrom('.wh.', 'd/.wh...') },
);
const id = fc.oneof(
  { weight: 150, arbitrary: fc.constantFrom(0, 0, 1000) },
  { weight: 15, arbitrary: fc.constantFrom(-1, -2, 2 ** 32 - 1, 2 ** 32 - 2, 2_097_152, 2 ** 31, -(2 ** 31)) },
  { weight: 1, arbitrary: fc.constant(2 ** 32) },
);
const time = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(0, 1, 1_600_000_000) },
  { weight: 1, arbitrary: fc.constantFrom(-1, -1_000_000, 2 ** 31, 2 ** 33 - 1, 2 ** 34, 2 ** 40, -(2 ** 33)) },
);
const device = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom(1, 3, 255, 256, 4095) },
  { weight: 1, arbitrary: fc.constantFrom(0, 4096, 2 ** 20 - 1, 2 ** 20, -1) },
);
const content = fc.constantFrom('', '', 'x', 'yy', 'z'.repeat(512), 'w'.repeat(5000));
/** Of these no reader reads a content: the next header is looked for right behind their own. */
const WITHOUT_CONTENT = new Set(['1', '2', '3', '4', '5', '6']);
const anyEntry: fc.Arbitrary<TarEntry> = fc.record(
  {
    name: anyPath,
    type: fc.oneof(
      {
        weight: 40,
        arbitrary: fc.constantFrom('0', '0', '0', '1', '1', '2', '2', '5', '5', '5', '3', '4', '6', '7', '\0'),
      },
      { weight: 1, arbitrary: fc.constant('V') },
    ),
    mode: fc.constantFrom(0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o000, 0o7777),
    uid: id,
    gid: id,
    mtime: time,
    linkname: fc.oneof(
      { weight: 40, arbitrary: fc.constantFrom('a', 'd', 'd/a', 'd/e', 's', 'b', './d/e/f', 's/a') },
      { weight: 6, arbitrary: fc.constantFrom('.', '..', '/', '/d', '../../d', 's', 'nowhere', '../outside') },
      { weight: 1, arbitrary: fc.constant('') },
    ),
    content,
    // Of a v7 header no device numbers are read: its devices are whiteouts, which are refused.
    magic: fc.oneof(
      { weight: 9, arbitrary: fc.constantFrom('ustar', 'gnu') },
      { weight: 1, arbitrary: fc.constant('v7') },
    ),
    devmajor: device,
    devminor: device,
  },
  { requiredKeys: ['name', 'type', 'mode', 'mtime', 'linkname', 'devmajor', 'devminor'] },
);
const entry = fc
  .tuple(anyEntry, fc.nat(40))
  .map(([{ content, ...rest }, odd]): TarEntry =>
    content === undefined || (WITHOUT_CONTENT.has(rest.type ?? '') && odd > 0) ? rest : { ...rest, content },
  );

const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');
const XATTRS: Record<string, Buffer> = {
  'user.a': Buffer.from('1'),
  'user.empty': Buffer.alloc(0),
  'user.': Buffer.from('1'),
  'user.\xff': Buffer.from('\0\n='),
  'user.overlay.opaque': Buffer.from('y'),
  'trusted.a': Buffer.from('2'),
  'trusted.overlay.opaque': Buffer.from('y'),
  'trusted.overlay.redirect': Buffer.from('/d'),
  'security.selinux': Buffer.from('system_u:object_r:bin_t:s0\0'),
  'security.a': Buffer.from('3'),
  'security.capability': bytes('0100000200040000000000000000000000000000'),
  'system.posix_acl_access': bytes('0200000001000600ffffffff04000400ffffffff20000400ffffffff'),
  'system.posix_acl_default': bytes('0200000001000700ffffffff04000500ffffffff20000500ffffffff'),
  'system.a': Buffer.from('4'),
  'btrfs.compression': Buffer.from('zstd'),
  unknown: Buffer.from('5'),
  '': Buffer.from('6'),
};
const PAX: Record<string, string> = {
  path: 'd/a',
  linkpath: 'd/e',
  uid: '-1',
  gid: '4294967294',
  size: '0',
  mtime: '1600000000.123456789',
  atime: 'x',
  'GNU.sparse.name': 'b\0c',
  comment: 'c',
};
const ODD_NUMBERS = [
  '',
  '-1',
  '+7',
  '00012',
  '4294967295',
  '4294967296',
  '9223372036854775807',
  '9223372036854775808',
  '1.5',
  '-0.25',
  '-1.000001',
  'x',
  '1e3',
];
const pax = fc
  .oneof(
    {
      weight: 4,
      arbitrary: fc
        .subarray(Object.keys(XATTRS), { minLength: 1, maxLength: 3 })
        .map((names) => names.map((name): [string, Buffer] => [`SCHILY.xattr.${name}`, XATTRS[name]!])),
    },
    {
      weight: 1,
      arbitrary: fc
        .subarray(Object.keys(PAX), { minLength: 1, maxLength: 2 })
        .map((keys) => keys.map((key): [string, string] => [key, PAX[key]!])),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(fc.constantFrom('uid', 'gid', 'mtime', 'size', 'ctime'), fc.constantFrom(...ODD_NUMBERS))
        .map((pair) => [pair]),
    },
  )
  .map((pairs): TarEntry => ({ name: 'pax', type: 'x', content: latin1Records(pairs) }));

function latin1Records(pairs: readonly (readonly [string, string | Uint8Array])[]): Buffer {
  // Keys are bytes as latin1 text, which paxRecords would encode.
  return Buffer.concat(
    pairs.map(([key, value]) => {
      const rest = Buffer.concat([Buffer.from(` ${key}=`, 'latin1'), Buffer.from(value as string), Buffer.from('\n')]);
      let length = rest.length + 1;
      while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
      return Buffer.concat([Buffer.from(String(length)), rest]);
    }),
  );
}

/** A sparse file of PAX format 0.1 or 1.0, its map right or not. */
const sparse = fc
  .record({
    name: anyPath,
    regions: fc.uniqueArray(fc.tuple(fc.constantFrom(0, 512, 4096, 100_000), fc.constantFrom(0, 1, 511, 512, 600)), {
      maxLength: 4,
      selector: ([offset]) => offset,
    }),
    sorted: fc.nat(9).map((odd) => odd > 0),
    size: fc.oneof(
      { weight: 9, arbitrary: fc.constant('200000') },
      { weight: 1, arbitrary: fc.constantFrom('0', '4096', '-1', '4611686018427387904') },
    ),
    version: fc.constantFrom('0.1', '1.0'),
    excess: fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constantFrom(1, -1) }),
  })
  .map(({ name, regions, sorted, size, version, excess }): TarEntry[] => {
    const map = sorted ? [...regions].sort(([a], [b]) => a - b) : regions;
    let stored: number = excess;
    for (const [, length] of map) stored += length;
    const data = Buffer.alloc(Math.max(0, stored), 0x73);
    const records: Record<string, string> = {
      'GNU.sparse.major': version[0]!,
      'GNU.sparse.minor': version[2]!,
      'GNU.sparse.name': name,
    };
    if (version === '0.1') {
      Object.assign(records, {
        'GNU.sparse.size': size,
        'GNU.sparse.numblocks': String(map.length),
        'GNU.sparse.map': map.flat().join(','),
      });
      return [
        { name: 'pax', type: 'x', content: paxRecords(records) },
        { name: 'sparse', content: data },
      ];
    }
    records['GNU.sparse.realsize'] = size;
    const lines = Buffer.from([map.length, ...map.flat()].map((number) => `${number}\n`).join(''));
    const padding = Buffer.alloc((512 - (lines.length % 512)) % 512);
    return [
      { name: 'pax', type: 'x', content: paxRecords(records) },
      { name: 'sparse', content: Buffer.concat([lines, padding, data]) },
    ];
  });

const step: fc.Arbitrary<TarEntry[]> = fc.oneof(
  { weight: 12, arbitrary: entry.map((each) => [each]) },
  { weight: 4, arbitrary: fc.tuple(pax, entry).map((pair) => [...pair]) },
  { weight: 4, arbitrary: fc.tuple(marker, content, id).map(([name, text, uid]) => [{ name, content: text, uid }]) },
  { weight: 1, arbitrary: sparse },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom('L' as const, 'K' as const), anyPath, fc.constantFrom(1, 1, 2, 40), entry)
      .map(([type, name, times, each]) => [
        ...Array.from({ length: times }, () => gnuLong(type, Buffer.from(name, 'latin1'))),
        each,
      ]),
  },
);

/** The layer below: plain things that the archive can meet. */
const parent: fc.Arbitrary<TarEntry[]> = fc.subarray<TarEntry>([
  { name: 'a', content: 'below' },
  { name: 'b', type: '2', linkname: 'd' },
  { name: 'd', type: '5', mode: 0o700, uid: 7 },
  { name: 'd/a', content: 'below' },
  { name: 'd/e', type: '5', mode: 0o2755 },
  { name: 'd/e/f', content: 'below' },
  { name: 's', type: '2', linkname: 'd' },
]);

const FILES = new Set(['0', '7', '\0', '3', '4', '6']);

/** Most hard links lead to what the archive made before: `aims` says to which of it. */
function aimed(layer: readonly TarEntry[], aims: readonly number[]): TarEntry[] {
  const made: TarEntry['name'][] = [];
  return layer.map((each, index) => {
    const aim = aims[index % aims.length] ?? 0;
    if (FILES.has(each.type ?? '0')) made.push(each.name);
    if (each.type !== '1' || aim === 0) return each;
    return made.length === 0 ? { ...each, type: '0' } : { ...each, linkname: made[aim % made.length]! };
  });
}

/** Entries as data, so that a counterexample can be read. */
export const hostileArchives: fc.Arbitrary<Archive> = fc
  .record({
    parent,
    steps: fc.array(step, { minLength: 1, maxLength: 8 }),
    aims: fc.array(fc.nat(20), { minLength: 1, maxLength: 8 }),
  })
  .map(({ parent, steps, aims }) => ({ parent, layer: aimed(steps.flat(), aims) }));
