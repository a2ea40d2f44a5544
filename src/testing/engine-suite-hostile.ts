/** Engines: archives that are broken, and archives that an attacker wrote. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { everyday, unpack } from './engine-suite-tars.js';
import type { EngineTestContext } from './engine-test-context.js';
import type { TarEntry } from './tar-builder.js';
import { buildTar, storedZstd } from './tar-builder.js';

export function engineHostileTests({ test }: EngineTestContext): void {
  const tar = buildTar(everyday, { recordSize: 10240 });

  for (const [what, bytes, code] of [
    ['text', Buffer.from('this is no tar at all, but it is long enough for a block. '.repeat(20)), 'ERR_BAD_TAR'],
    ['a tar that ends inside a header', tar.subarray(0, 512 + 100), 'ERR_BAD_TAR'],
    ['a tar that ends inside a file', tar.subarray(0, 512 * 6), 'ERR_BAD_TAR'],
    ['a wrong checksum', buildTar([{ name: 'a', checksum: '000001\0 ' }]), 'ERR_BAD_TAR'],
    ['half a gzip file', gzipSync(tar).subarray(0, 300), 'ERR_BAD_COMPRESSION'],
    ['a damaged gzip file', damaged(gzipSync(tar)), 'ERR_BAD_COMPRESSION'],
    ['half a zstd frame', storedZstd(tar).subarray(0, 3000), 'ERR_BAD_COMPRESSION'],
    ['a hard link to nothing', buildTar([{ name: 'a', type: '1', linkname: 'b' }]), 'ERR_BAD_TAR'],
    ['a bare whiteout', buildTar([{ name: 'dir/.wh.', content: '' }]), /ERR_BAD_TAR|ERR_UNSAFE_PATH/],
    ['a whiteout in the disguise of a device', buildTar([{ name: 'dev', type: '3' }]), 'ERR_UNSAFE_PATH'],
  ] as const) {
    test(`refuses ${what}`, async (engine, directory) => {
      const outside = readdirSync(directory).length;
      await assert.rejects(unpack(engine, directory, Readable.from([bytes])), (error) => {
        assert.match(
          (error as { code?: string }).code ?? String(error),
          typeof code === 'string' ? new RegExp(`^${code}$`) : code,
        );
        return true;
      });
      assert.ok(readdirSync(directory).length <= outside + 2);
    });
  }

  test('never writes outside, whatever names say', async (engine, directory) => {
    mkdirSync(join(directory, 'outside'));
    writeFileSync(join(directory, 'outside/target'), 'untouched');
    const attacks: TarEntry[][] = [
      [{ name: '../outside/new', content: 'x' }],
      [{ name: '/../../outside/new', content: 'x' }],
      [
        { name: 'dir', type: '2', linkname: join(directory, 'outside') },
        { name: 'dir/new', content: 'x' },
      ],
      [
        { name: 'dir', type: '2', linkname: '../outside' },
        { name: 'dir/target', content: 'x' },
      ],
      [
        { name: 'hard', type: '1', linkname: '../outside/target' },
        { name: 'hard', content: 'x' },
      ],
      [{ name: 'hard', type: '1', linkname: join(directory, 'outside/target') }],
      [
        { name: 'file', type: '2', linkname: '../outside/target' },
        { name: 'file', content: 'x' },
      ],
      [{ name: '../.wh.outside', content: '' }],
      [
        { name: 'dir', type: '2', linkname: '../outside' },
        { name: 'dir/.wh..wh..opq', content: '' },
      ],
    ];
    for (const [i, entries] of attacks.entries()) {
      for (const whiteouts of ['overlay', 'plain'] as const) {
        // Contained or refused: both are right.
        await unpack(engine, directory, Readable.from([buildTar(entries)]), {
          name: `a${i}${whiteouts}`,
          whiteouts,
        }).catch(() => undefined);
        assert.deepEqual(readdirSync(join(directory, 'outside')), ['target'], `attack ${i}`);
        assert.equal(readFileSync(join(directory, 'outside/target'), 'utf8'), 'untouched');
        assert.equal(statSync(join(directory, 'outside/target')).nlink, 1);
      }
    }
  });
}

function damaged(bytes: Buffer): Buffer {
  const changed = Buffer.from(bytes);
  changed[changed.length - 6] = (changed[changed.length - 6] ?? 0) ^ 0xff;
  return changed;
}
