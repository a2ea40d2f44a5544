/** Native and JavaScript engine held against each other on what no sane archiver writes: same results, or same refusals. */
import { test } from 'node:test';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { loadNativeEngine } from '../../../src/engine/native/index.js';
import { checkSameDifference, checkSameIngest } from '../../../src/testing/engine-agreement.js';
import { buildTar, type TarEntry } from '../../../src/testing/tar-builder.js';
import { tempDir } from '../../support/temp.js';
import { engine, samples } from './js-support.js';

const engines = [loadNativeEngine(), engine] as const;
const file = (name: string, content = '', more: Partial<TarEntry> = {}): TarEntry => ({ name, content, ...more });
const directory = (name: string): TarEntry => ({ name, type: '5' });
const link = (name: string, linkname: string): TarEntry => ({ name, type: '2', linkname });
const hard = (name: string, linkname: string): TarEntry => ({ name, type: '1', linkname });

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
