/** What a tar stream of the native engine holds while a consumer reads it and lets go of each block. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { tempDir } from '../../support/temp.js';

const engine = loadNativeEngine();
const MIB = 2 ** 20;

/** Bytes that the kernel says are resident, now (`VmRSS`) or at most since the last reset (`VmHWM`). */
function resident(field: 'VmRSS' | 'VmHWM'): number {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(found?.[1]) * 1024;
}

test('a long tar stream stays below 32 MiB, and what its consumer keeps stays what it was', async (t) => {
  const upper = join(tempDir(t), 'upper');
  mkdirSync(upper);
  // 640 MiB of zeros that lie nowhere, so that only the way through is measured.
  for (let i = 0; i < 10; i++) {
    const path = join(upper, `file-${i}`);
    writeFileSync(path, `begin ${i}`);
    truncateSync(path, 64 * MIB);
  }
  const kept: Buffer[] = [];
  const read = async (): Promise<number> => {
    let bytes = 0;
    const sink = new Writable({
      write(block: Buffer, _encoding, done) {
        if (bytes % (64 * MIB) < block.length) kept.push(block);
        bytes += block.length;
        done();
      },
    });
    await pipeline(await engine.treeTar({ upper: { directories: [upper], whiteouts: 'overlay' } }), sink);
    return bytes;
  };
  await read(); // code and heap as they are while it works
  const before = kept.splice(0).map((block) => Buffer.from(block));
  writeFileSync('/proc/self/clear_refs', '5');
  const idle = resident('VmRSS');
  assert.ok((await read()) > 640 * MIB);
  const grown = resident('VmHWM') - idle;
  assert.ok(grown < 32 * MIB, `${(grown / MIB).toFixed(1)} MiB more than before`);
  assert.equal(before.length, 11);
  assert.ok(kept.every((block, i) => block.equals(before[i] ?? Buffer.alloc(0))));
});

test('a stream that has ended holds no memory any more, though somebody holds the stream', async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const upper = join(tempDir(t), 'upper');
  mkdirSync(upper);
  writeFileSync(join(upper, 'file'), '');
  truncateSync(join(upper, 'file'), 128 * MIB);
  const held: Readable[] = [];
  const read = async (): Promise<void> => {
    const stream = await engine.treeTar({ upper: { directories: [upper], whiteouts: 'overlay' } });
    held.push(stream);
    await pipeline(stream, new Writable({ write: (_block, _encoding, done) => done() }));
  };
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 5; i++) {
      collect();
      await nextTurn(); // finalizers run in a turn of their own
    }
  };
  await read();
  await settle();
  const before = resident('VmRSS');
  for (let i = 0; i < 5; i++) await read();
  await settle();
  const grown = resident('VmRSS') - before;
  assert.equal(held.length, 6);
  assert.ok(grown < 32 * MIB, `five ended streams hold ${(grown / MIB).toFixed(1)} MiB`);
});
