/**
 * GNU tar, bsdtar, Python's tarfile and our two engines unpack the same odd archives. Where they agree, we agree; where
 * they do not, the table says who sees what, as docs/security.md does with the reason. A tool that changes its mind fails
 * the test.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { lstatSync, mkdirSync, readFileSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { openEngine } from '../../src/engine/select.js';
import { buildTar, gnuLong, paxRecords, type TarEntry } from '../../src/testing/tar-builder.js';
import { tempDir } from '../support/temp.js';
import { requirePeers } from './support.js';

type Tool = 'gnu' | 'bsd' | 'python' | 'native' | 'js';
const TOOLS: readonly Tool[] = ['gnu', 'bsd', 'python', 'native', 'js'];

interface Odd {
  tar: Buffer;
  /** What all of them see, or `refused`. */
  all: string;
  /** Who sees something else. */
  but?: Partial<Record<Tool, string>>;
}

const file = (
  name: string | Uint8Array,
  content: string | Uint8Array = '',
  more: Partial<TarEntry> = {},
): TarEntry => ({
  name,
  content,
  ...more,
});
const pax = (type: 'x' | 'g', records: Record<string, string>): TarEntry => ({
  name: 'PaxHeaders/p',
  type,
  content: paxRecords(records),
});
const base256 = (value: number): Buffer => {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt8(0x80, 0);
  bytes.writeUInt32BE(value, 8);
  return bytes;
};
/** Two regions, the first of a whole block: GNU tar fills each up to a block, so others cannot be told apart. */
const MAP = '0\n512\n1021\n3\n';
const REGIONS = `${'r'.repeat(512)}def`;

const ODD: Readonly<Record<string, Odd>> = {
  'no entry at all': { tar: buildTar([]), all: '' },
  'a file in the oldest format': { tar: buildTar([file('a', 'old', { magic: 'v7' })]), all: 'a=old' },
  'a directory of the oldest format: a trailing slash': {
    tar: buildTar([{ name: 'd/', type: '\0', magic: 'v7' }]),
    all: 'd/',
  },
  'a prefix and a name': { tar: buildTar([file('b', 'x', { prefix: 'a' })]), all: 'a/ a/b=x' },
  'a prefix in the GNU format, which has none': {
    tar: buildTar([file('b', 'x', { magic: 'gnu', prefix: 'a' })]),
    all: 'b=x',
    but: { python: 'a/ a/b=x', native: 'a/ a/b=x', js: 'a/ a/b=x' },
  },
  'a size in base 256': {
    tar: buildTar([file('a', 'four', { patch: [{ at: 124, bytes: base256(4) }] })]),
    all: 'a=four',
  },
  'a PAX size over another in the header': {
    tar: buildTar([pax('x', { size: '4' }), file('a', 'four', { size: 0 }), file('b', 'y')]),
    all: 'a=four b=y',
  },
  'a PAX path over the header': { tar: buildTar([file('wrong', 'x', { pax: { path: 'right' } })]), all: 'right=x' },
  'a PAX path twice: the last one counts': {
    tar: buildTar([
      {
        name: 'p',
        type: 'x',
        content: Buffer.concat([paxRecords({ path: 'first' }), paxRecords({ path: 'second' })]),
      },
      file('wrong', 'x'),
    ]),
    all: 'second=x',
  },
  'a GNU long name over the header': {
    tar: buildTar([gnuLong('L', 'n'.repeat(120)), file('n', 'x')]),
    all: `${'n'.repeat(120)}=x`,
  },
  'a global PAX path, which would rename every entry': {
    tar: buildTar([pax('g', { path: 'everywhere' }), file('a', 'x')]),
    all: 'a=x',
    but: { gnu: 'everywhere=x', python: 'everywhere=x' },
  },
  'a file twice: the last one counts': { tar: buildTar([file('a', 'one'), file('a', 'second')]), all: 'a=second' },
  'a directory that becomes a file': {
    tar: buildTar([{ name: 'd', type: '5' }, file('d', 'x')]),
    all: 'd=x',
    but: { python: 'refused' },
  },
  'a file that becomes a directory': {
    tar: buildTar([file('d', 'x'), { name: 'd', type: '5' }, file('d/f', 'y')]),
    all: 'd/ d/f=y',
    but: { python: 'refused' },
  },
  'one block of zeros, then the end of the file': {
    tar: Buffer.concat([buildTar([file('a', 'x')], { end: false }), Buffer.alloc(512)]),
    all: 'a=x',
  },
  'one block of zeros, then another entry': {
    tar: Buffer.concat([buildTar([file('a', 'x')], { end: false }), Buffer.alloc(512), buildTar([file('b', 'y')])]),
    all: 'a=x',
    but: { native: 'refused', js: 'refused' },
  },
  'an entry behind the end': {
    tar: Buffer.concat([buildTar([file('a', 'x')]), buildTar([file('b', 'y')])]),
    all: 'a=x',
  },
  'no end at all': { tar: buildTar([file('a', 'x')], { end: false }), all: 'a=x' },
  'an end inside a file': {
    tar: buildTar([file('a', 'x'.repeat(600))], { end: false }).subarray(0, 1000),
    all: 'refused',
  },
  'a wrong checksum': { tar: buildTar([file('a', 'x', { checksum: '000001\0 ' })]), all: 'refused' },
  'a checksum of signed bytes, as old Suns wrote': {
    tar: signedChecksum(),
    all: '\xff=x',
  },
  'a type that nobody knows': {
    tar: buildTar([file('a', 'x', { type: 'U' })]),
    all: 'a=x',
    but: { native: 'refused', js: 'refused' },
  },
  'a contiguous file': { tar: buildTar([file('a', 'x', { type: '7' })]), all: 'a=x' },
  'a hard link with content': {
    tar: buildTar([file('a', 'one'), { name: 'b', type: '1', linkname: 'a', content: '' }]),
    all: 'a=one b=one',
  },
  'a hard link to what comes later': {
    tar: buildTar([{ name: 'b', type: '1', linkname: 'a' }, file('a', 'x')]),
    all: 'refused',
  },
  'a symbolic link whose target ends in a slash': {
    tar: buildTar([{ name: 'l', type: '2', linkname: 'd/' }]),
    all: 'l->d/',
  },
  'a name of bytes that are not UTF-8': {
    tar: buildTar([file(Buffer.from([0x66, 0xff, 0xfe]), 'x')]),
    all: 'f\xff\xfe=x',
  },
  'a sparse file of PAX 1.0': {
    tar: buildTar([
      pax('x', {
        'GNU.sparse.major': '1',
        'GNU.sparse.minor': '0',
        'GNU.sparse.name': 's',
        'GNU.sparse.realsize': '1024',
      }),
      file('GNUSparseFile.0/s', Buffer.concat([Buffer.from(`2\n${MAP}`.padEnd(512, '\0')), Buffer.from(REGIONS)])),
    ]),
    all: 's=<512 r><509 \0>def',
  },
  'a sparse file of PAX 0.1': {
    tar: buildTar([
      pax('x', {
        'GNU.sparse.size': '1024',
        'GNU.sparse.numblocks': '2',
        'GNU.sparse.map': '0,512,1021,3',
        'GNU.sparse.name': 's',
      }),
      file('GNUSparseFile.0/s', REGIONS),
    ]),
    all: 's=<512 r><509 \0>def',
  },
  'a sparse file whose first region ends within a block': {
    tar: buildTar([
      pax('x', {
        'GNU.sparse.major': '1',
        'GNU.sparse.minor': '0',
        'GNU.sparse.name': 's',
        'GNU.sparse.realsize': '1024',
      }),
      file(
        'GNUSparseFile.0/s',
        Buffer.concat([Buffer.from('2\n0\n3\n700\n3\n'.padEnd(512, '\0')), Buffer.from('abcdef')]),
      ),
    ]),
    all: 's=abc<697 \0>def<321 \0>',
    but: { gnu: 's=abc<700 \0>' },
  },
  'an absolute name': { tar: buildTar([file('/a', 'x')]), all: 'a=x' },
  'dots that stay inside': { tar: buildTar([{ name: 'd', type: '5' }, file('./d/.//x', 'x')]), all: 'd/ d/x=x' },
  'two dots that stay inside': {
    tar: buildTar([{ name: 'd', type: '5' }, file('d/../x', 'x')]),
    all: 'd/ x=x',
    but: { gnu: 'refused', bsd: 'refused' },
  },
  'two dots that leave': { tar: buildTar([file('../x', 'x')]), all: 'refused' },
  'a link, and a file through it': {
    tar: buildTar([{ name: 'd', type: '5' }, { name: 'l', type: '2', linkname: 'd' }, file('l/x', 'x')]),
    all: 'd/ d/x=x l->d',
    but: { bsd: 'refused' },
  },
};

/** The entry `\xff` with the sum of its bytes taken as signed ones. */
function signedChecksum(): Buffer {
  const tar = buildTar([file(Buffer.from([0xff]), 'x')]);
  const header = tar.subarray(0, 512);
  let sum = 0;
  header.forEach((byte, at) => (sum += at >= 148 && at < 156 ? 0x20 : byte < 128 ? byte : byte - 256));
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return tar;
}

const PYTHON = `
import sys, tarfile
with tarfile.open(sys.argv[1], 'r:', errors='surrogateescape') as tar:
    tar.errorlevel = 2
    tar.extractall(sys.argv[2], filter='tar')
`;

before(() => {
  requirePeers('tar', 'bsdtar', 'python3');
});

/** Long runs of one character as `<512 r>`. */
function shorten(text: string): string {
  return text.replace(/(.)\1{99,}/gs, (run, one: string) => `<${run.length} ${one}>`);
}

/** `a=content d/ l->target`, in byte order. */
function look(directory: string): string {
  const found: string[] = [];
  const walk = (at: Buffer, name: Buffer): void => {
    for (const item of readdirSync(at, { encoding: 'buffer' })) {
      const path = Buffer.concat([at, Buffer.from('/'), item]);
      const shown = Buffer.concat([name, item]);
      const stat = lstatSync(path);
      if (stat.isDirectory()) {
        found.push(`${shown.toString('latin1')}/`);
        walk(path, Buffer.concat([shown, Buffer.from('/')]));
      } else if (stat.isSymbolicLink()) found.push(`${shown.toString('latin1')}->${readlinkSync(path)}`);
      else found.push(`${shown.toString('latin1')}=${shorten(readFileSync(path, 'latin1'))}`);
    }
  };
  walk(Buffer.from(directory), Buffer.alloc(0));
  return found.sort().join(' ');
}

async function unpackWith(tool: Tool, tar: string, into: string): Promise<string> {
  if (tool === 'native' || tool === 'js') {
    const engine = await openEngine({ engine: tool });
    try {
      await engine.ingest({ path: tar }, { directory: into, whiteouts: 'overlay' });
    } catch (error) {
      assert.match((error as { code?: string }).code ?? String(error), /^ERR_(BAD_TAR|UNSAFE_PATH)$/);
      return 'refused';
    }
    return look(into);
  }
  const [program, args] = {
    gnu: ['tar', ['-xf', tar, '-C', into]] as const,
    bsd: ['bsdtar', ['-xf', tar, '-C', into]] as const,
    python: ['python3', ['-c', PYTHON, tar, into]] as const,
  }[tool];
  const { status } = spawnSync(program, args, { env: { ...process.env, LC_ALL: 'C.UTF-8' } });
  return status === 0 ? look(into) : 'refused';
}

for (const [what, { tar, all, but = {} }] of Object.entries(ODD)) {
  test(what, async (t) => {
    const directory = tempDir(t, 'odd');
    const path = join(directory, 'odd.tar');
    writeFileSync(path, tar);
    const seen: Partial<Record<Tool, string>> = {};
    const expected: Partial<Record<Tool, string>> = {};
    for (const tool of TOOLS) {
      mkdirSync(join(directory, tool));
      seen[tool] = await unpackWith(tool, path, join(directory, tool));
      expected[tool] = but[tool] ?? all;
    }
    assert.deepEqual(seen, expected);
  });
}

test('the tools are those that the table speaks of', () => {
  assert.match(execFileSync('tar', ['--version'], { encoding: 'utf8' }), /GNU tar/);
  assert.match(execFileSync('bsdtar', ['--version'], { encoding: 'utf8' }), /libarchive/);
});
