/** Tars in and out of the JavaScript engine, byte for byte. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createHash } from 'node:crypto';
import { extract } from 'tar-stream';
import { LayerStoreError } from '../../../src/errors.js';
import type { DiffID, Digest } from '../../../src/digest.js';
import { buildTar, storedZstd } from '../../../src/testing/tar-builder.js';
import { assertSameTree, snapshotTree } from '../../../src/testing/tree-snapshot.js';
import { tempDir } from '../../support/temp.js';
import { engine, give, pieces, samples, take } from './js-support.js';

const sha256 = (bytes: Uint8Array): DiffID => `sha256:${createHash('sha256').update(bytes).digest('hex')}` as DiffID;
const REFUSED = new Set(['issue10968.tar', 'neg-size.tar', 'pax-bad-hdr-file.tar']);

for (const { name, path, bytes } of samples()) {
  test(`sample ${name}: given back byte for byte, or refused`, async (t) => {
    const base = tempDir(t);
    if (REFUSED.has(name)) {
      await assert.rejects(take(base, { path }), (error) => LayerStoreError.is(error, 'ERR_BAD_TAR'));
      return;
    }
    const taken = await take(base, { path });
    assert.equal(taken.result.diffID, sha256(bytes));
    assert.ok((await give(taken)).equals(bytes));
    // However the bytes are cut, the result is the same.
    const step = bytes.length > 1e6 ? 100_003 : 7;
    const again = await take(base, Readable.from(pieces(bytes, step)));
    assert.deepEqual(
      { ...again.result, compression: '', blobSize: 0, blobDigest: '' },
      { ...taken.result, compression: '', blobSize: 0, blobDigest: '' },
    );
    assertSameTree(withoutDirectoryTimes(again.tree), withoutDirectoryTimes(taken.tree), name);
  });
}

/** A directory that no entry names has the time at which it was made. */
function withoutDirectoryTimes(tree: string): ReturnType<typeof snapshotTree> {
  const found = snapshotTree(tree);
  for (const entry of found.values()) if (entry.type === 'directory') (entry as { mtime: string }).mtime = '';
  return found;
}

/** A tree with a bit of everything, and tars of it by whoever is installed. */
function makeTree(base: string): string {
  const tree = join(base, 'made');
  mkdirSync(tree);
  execFileSync(
    '/bin/bash',
    [
      '-ec',
      `
    mkdir -p dir/deep empty "name with blanks"; echo one >dir/one; ln dir/one dir/hard; ln -s one dir/sym; ln -s /nowhere dangling
    mkfifo fifo; mknod null c 1 3; mknod disk b 7 300; chmod 4755 dir/one; chmod 1777 empty; chown 1234:99 dir/deep
    head -c 300000 /dev/urandom >big; : >nothing; touch -d '1999-12-31 23:59:58.123456' nothing
    python3 -c "open('n'*200,'w').write('long'); open(b'bytes-\\xff\\xfe','w').write('x')"; setfattr -n user.note -v hello big
    setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 dir/deep/../../nothing
    find . -type d -exec touch -d '2001-02-03 04:05:06' {} +`,
    ],
    { cwd: tree },
  );
  return tree;
}

const WRITERS: Record<string, readonly string[]> = {
  'tar, GNU': ['/bin/tar', '--format=gnu', '-cf', 'OUT', '-C', 'TREE', '.'],
  'tar, PAX': ['/bin/tar', '--format=posix', '--xattrs', '--xattrs-include=*', '-cf', 'OUT', '-C', 'TREE', '.'],
  'tar, ustar': ['/bin/tar', '--format=ustar', '--exclude=nnnn*', '-cf', 'OUT', '-C', 'TREE', '.'],
  'tar, v7': [
    '/bin/tar',
    '--format=v7',
    '--exclude=nnnn*',
    '--exclude=fifo',
    '--exclude=null',
    '--exclude=disk',
    '-cf',
    'OUT',
    '-C',
    'TREE',
    '.',
  ],
  'python, GNU': [
    'python3',
    '-c',
    'import sys,tarfile; t=tarfile.open(sys.argv[1],"w",format=tarfile.GNU_FORMAT); t.add(sys.argv[2],"."); t.close()',
    'OUT',
    'TREE',
  ],
  'python, PAX': [
    'python3',
    '-c',
    'import sys,tarfile; t=tarfile.open(sys.argv[1],"w",format=tarfile.PAX_FORMAT); t.add(sys.argv[2],"."); t.close()',
    'OUT',
    'TREE',
  ],
  ...(existsSync('/usr/bin/bsdtar') ? { bsdtar: ['/usr/bin/bsdtar', '-cf', 'OUT', '-C', 'TREE', '.'] } : {}),
};

for (const [name, command] of Object.entries(WRITERS)) {
  test(`a tree packed by ${name} is the same tree, and gives its tar back`, async (t) => {
    const base = tempDir(t);
    const tree = makeTree(base);
    const tar = join(base, 'made.tar');
    const [program, ...args] = command.map((arg) => (arg === 'OUT' ? tar : arg === 'TREE' ? tree : arg));
    execFileSync(program ?? '', args);
    const taken = await take(base, { path: tar });
    assert.ok((await give(taken)).equals(readFileSync(tar)));
    // The reference is what GNU tar unpacks from it; bsdtar's entries of one directory are not side by side, and without the
    // delay GNU tar sets the time of such a directory before its last file is made.
    const reference = join(base, 'reference');
    mkdirSync(reference);
    execFileSync('/bin/tar', [
      '--xattrs',
      '--xattrs-include=*',
      '--same-owner',
      '--delay-directory-restore',
      '-xpf',
      tar,
      '-C',
      reference,
    ]);
    const whole = (path: string): ReturnType<typeof snapshotTree> => {
      const found = snapshotTree(path);
      found.delete('/'); // the root's own metadata is the store's business
      for (const entry of found.values()) (entry as { mtime: string }).mtime = entry.mtime.replace(/\..*/, '');
      return found;
    };
    assertSameTree(whole(taken.tree), whole(reference), name);
  });
}

test('a large real tree, or the corpus layers where they are at hand, come back byte for byte', async (t) => {
  const base = tempDir(t);
  const corpus = process.env['LAYERSTORE_CORPUS'];
  let tars: string[];
  if (corpus !== undefined && existsSync(join(corpus, 'layers'))) {
    tars = readdirSync(join(corpus, 'layers'))
      .sort()
      .map((name) => join(corpus, 'layers', name));
  } else {
    const tar = join(base, 'etc.tar');
    execFileSync('/bin/tar', ['-cf', tar, '-C', '/', 'etc', 'usr/share/perl5']);
    tars = [tar];
  }
  for (const path of tars) {
    const taken = await take(base, { path });
    assert.ok(taken.result.entries > 5);
    const exported = await engine.assemble({
      tarSplit: { path: taken.record },
      tree: { directory: taken.tree, open: () => assert.fail('the directory is read'), close: async () => undefined },
      diffID: taken.result.diffID,
    });
    const hash = createHash('sha256');
    for await (const chunk of exported) hash.update(chunk as Buffer);
    assert.equal(`sha256:${hash.digest('hex')}`, taken.result.diffID);
    assert.equal(taken.result.size, (await engine.usage(taken.tree)).size);
    await engine.removeTree(taken.tree);
  }
});

const plain = buildTar([
  { name: 'd/', type: '5' },
  { name: 'd/a', content: 'content of a' },
  { name: 'd/b', content: 'x'.repeat(70_000) },
]);

test('gzip and zstd are told by their content: several members, frames, padding', async (t) => {
  const base = tempDir(t);
  const half = 1000;
  const skippable = Buffer.from('502a4d1805000000', 'hex');
  const forms: Record<string, [Buffer, string]> = {
    gzip: [gzipSync(plain), 'gzip'],
    members: [
      Buffer.concat([gzipSync(plain.subarray(0, half)), gzipSync(plain.subarray(half)), Buffer.alloc(700)]),
      'gzip',
    ],
    zstd: [storedZstd(plain), 'zstd'],
    frames: [
      Buffer.concat([
        skippable,
        Buffer.from('hello'),
        storedZstd(plain.subarray(0, half)),
        storedZstd(plain.subarray(half)),
        skippable,
        Buffer.from('world'),
      ]),
      'zstd',
    ],
  };
  if (existsSync('/usr/bin/zstd'))
    forms['zstd -19'] = [execFileSync('/usr/bin/zstd', ['-19', '-c'], { input: plain }), 'zstd'];
  for (const [name, [bytes, compression]] of Object.entries(forms)) {
    for (const step of [1, 3, 4099, bytes.length]) {
      const taken = await take(base, Readable.from(pieces(bytes, step)), { hashBlob: true });
      assert.equal(taken.result.diffID, sha256(plain), `${name} in pieces of ${String(step)}`);
      assert.equal(taken.result.compression, compression);
      assert.equal(taken.result.blobDigest, sha256(bytes));
      assert.equal(taken.result.blobSize, bytes.length);
    }
    for (const cut of [5, bytes.length >> 1, bytes.length - 1]) {
      if (name !== 'gzip' && name !== 'zstd') continue;
      await assert.rejects(
        take(base, bytes.subarray(0, cut)),
        (error) => LayerStoreError.is(error, 'ERR_BAD_COMPRESSION'),
        `${name} cut at ${String(cut)}`,
      );
    }
    const path = join(base, 'blob');
    writeFileSync(path, bytes);
    assert.deepEqual(await engine.hashFile(path), {
      digest: sha256(bytes),
      diffID: sha256(plain),
      size: bytes.length,
      tarSize: plain.length,
      compression,
    });
  }
});

test('what is expected is checked, and nothing of the record stays', async (t) => {
  const base = tempDir(t);
  const wrong = sha256(Buffer.from('wrong'));
  const right = { digest: sha256(plain) as Digest, size: plain.length };
  await take(base, plain, { diffID: sha256(plain), blob: right });
  for (const options of [
    { diffID: wrong },
    { blob: { ...right, digest: wrong } },
    { blob: { ...right, size: 5 } },
    { blob: { ...right, size: 1e6 } },
  ]) {
    await assert.rejects(take(base, plain, options), (error) => LayerStoreError.is(error, 'ERR_DIGEST_MISMATCH'));
  }
  assert.equal(readdirSync(base).filter((name) => name.endsWith('.gz')).length, 1);
});

test('an abort and the error of a source come through as they are', async (t) => {
  const base = tempDir(t);
  const reason = new Error('enough');
  const stalled = new Readable({ read: () => undefined });
  stalled.push(plain.subarray(0, 600));
  // A source that stalls: an abort that were not heard would never end.
  await assert.rejects(
    take(base, stalled, { signal: AbortSignal.any([AbortSignal.timeout(1e6), abortSoon(reason)]) }),
    (error) => error === reason,
  );
  assert.ok(stalled.destroyed);
  const fault = new TypeError('the network is down');
  const failing = async function* (): AsyncGenerator<Uint8Array> {
    yield plain.subarray(0, 700);
    throw fault;
  };
  await assert.rejects(take(base, failing()), (error) => error === fault);
  const zipped = gzipSync(plain);
  const failingZip = async function* (): AsyncGenerator<Uint8Array> {
    yield zipped.subarray(0, 30);
    throw fault;
  };
  await assert.rejects(take(base, failingZip()), (error) => error === fault);
  assert.equal(readdirSync(base).filter((name) => name.includes('.gz')).length, 0);
});

test('a source is let go of where nothing of it was read', async (t) => {
  const base = tempDir(t);
  const aborted = new Readable({ read: () => undefined });
  await assert.rejects(take(base, aborted, { signal: AbortSignal.abort(new Error('before')) }), /before/);
  assert.ok(aborted.destroyed);
  const unused = new Readable({ read: () => undefined });
  await assert.rejects(take(base, unused, { directory: join(base, 'missing') }));
  assert.ok(unused.destroyed);
});

function abortSoon(reason: Error): AbortSignal {
  const controller = new AbortController();
  setTimeout(() => controller.abort(reason), 20);
  return controller.signal;
}

test('sources that are none, and files that are no tar, are refused with a code', async (t) => {
  const base = tempDir(t);
  const code = (wanted: string, errno?: string) => (error: unknown) =>
    LayerStoreError.is(error) && error.code === wanted && (errno === undefined || error.errnoName === errno);
  await assert.rejects(take(base, 5 as never), code('ERR_INVALID_ARGUMENT'));
  await assert.rejects(take(base, Readable.from(['text'])), code('ERR_INVALID_ARGUMENT'));
  await assert.rejects(take(base, { path: join(base, 'nowhere') }), code('ERR_SYSTEM', 'ENOENT'));
  await assert.rejects(take(base, { path: base }), code('ERR_SYSTEM', 'EISDIR'));
  await assert.rejects(take(base, Buffer.from('garbage'.repeat(200))), code('ERR_BAD_TAR'));
  await assert.rejects(take(base, plain.subarray(0, 1030)), code('ERR_BAD_TAR'));
  const empty = await take(base, Readable.from([]));
  assert.equal(empty.result.tarSize, 0);
  assert.equal(empty.result.diffID, sha256(Buffer.alloc(0)));
});

test('a range of a file is the whole source', async (t) => {
  const base = tempDir(t);
  const path = join(base, 'archive');
  writeFileSync(path, Buffer.concat([Buffer.alloc(1234, 1), plain, Buffer.alloc(99, 2)]));
  const taken = await take(base, { path, offset: 1234, length: plain.length });
  assert.equal(taken.result.diffID, sha256(plain));
  await assert.rejects(take(base, { path, offset: 1234, length: plain.length + 1000 }), (error) =>
    LayerStoreError.is(error, 'ERR_BAD_TAR'),
  );
});

test('tar-stream reads the tars made here', async (t) => {
  const tree = makeTree(tempDir(t));
  const names: string[] = [];
  const reader = extract();
  reader.on('entry', (header, stream, next) => {
    names.push(`${header.type ?? ''} ${header.name} ${String(header.size)}`);
    stream.resume();
    stream.on('end', next);
  });
  const source = await engine.treeTar({ upper: { directories: [tree], whiteouts: 'plain' } });
  await new Promise<void>(
    (resolve, reject) =>
      void source
        .pipe(reader)
        .on('finish', () => resolve())
        .on('error', reject),
  );
  for (const wanted of [
    'directory dir/ 0',
    'file dir/hard 4',
    'link dir/one 0',
    'symlink dir/sym 0',
    'fifo fifo 0',
    'file big 300000',
    `file ${'n'.repeat(200)} 4`,
  ]) {
    assert.ok(names.includes(wanted), `${wanted} is missing of ${names.join('\n')}`);
  }
});
