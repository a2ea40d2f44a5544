import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  createReadStream,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import { writeChunks, writeTarget } from '../../../src/util/write-target.js';
import { tempDir } from '../../support/temp.js';

const put = (path: string, content = 'new'): Promise<boolean> =>
  writeTarget(path, true, async ({ fd, file }) => {
    writeSync(fd, content);
    return file !== undefined;
  });

describe('a target that is written', () => {
  it('a regular file appears only when it is complete, and an older one stays until then', async (t) => {
    const directory = tempDir(t, 'target');
    const path = join(directory, 'file');
    for (const before of [undefined, 'older']) {
      if (before !== undefined) writeFileSync(path, before);
      const there = readdirSync(directory).includes('file');
      await writeTarget(path, false, async ({ fd }) => {
        writeSync(fd, 'half');
        assert.equal(readdirSync(directory).includes('file'), there);
        if (before !== undefined) assert.equal(readFileSync(path, 'utf8'), before);
      });
      assert.equal(readFileSync(path, 'utf8'), 'half');
    }
    const reason = new Error('no more');
    await assert.rejects(
      writeTarget(path, false, () => Promise.reject(reason)),
      (error) => error === reason,
    );
    assert.deepEqual(readdirSync(directory), ['file']);
  });

  it('links stay, also where they lead to nothing yet', async (t) => {
    const directory = tempDir(t, 'target');
    mkdirSync(join(directory, 'below'));
    for (const [link, target] of [
      ['first', 'below/first'],
      ['second', 'first'],
      ['third', join(directory, 'below/third')],
    ] as const) {
      symlinkSync(target, join(directory, link));
      assert.equal(await put(join(directory, link), link), true);
      assert.ok(lstatSync(join(directory, link)).isSymbolicLink(), link);
      assert.equal(readFileSync(join(directory, link), 'utf8'), link);
    }
    assert.deepEqual(readdirSync(join(directory, 'below')).sort(), ['first', 'third']);
    symlinkSync('round', join(directory, 'round'));
    await assert.rejects(put(join(directory, 'round')), { code: 'ELOOP' });
    assert.ok(lstatSync(join(directory, 'round')).isSymbolicLink());
  });

  it('a device and a FIFO are written to and stay what they are', async (t) => {
    const directory = tempDir(t, 'target');
    const fifo = join(directory, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const [read, renamed] = await Promise.all([text(createReadStream(fifo)), put(fifo)]);
    assert.deepEqual([read, renamed], ['new', false]);
    assert.ok(lstatSync(fifo).isFIFO());
    symlinkSync('/dev/null', join(directory, 'null'));
    for (const path of [join(directory, 'null'), '/dev/null']) assert.equal(await put(path), false);
    assert.ok(lstatSync('/dev/null').isCharacterDevice());
    assert.deepEqual(readdirSync(directory).sort(), ['fifo', 'null']);
    await assert.rejects(put('/dev/full'), { code: 'ENOSPC' });
  });

  it('an open descriptor is written to, whatever it is: /dev/stdout, /dev/fd', (t) => {
    const directory = tempDir(t, 'target');
    const script = join(directory, 'script.mts');
    const module = pathToFileURL(resolve(import.meta.dirname, '../../../src/util/write-target.ts')).href;
    writeFileSync(
      script,
      `import { writeSync } from 'node:fs';
      import { writeTarget } from ${JSON.stringify(module)};
      for (const path of ['/dev/stdout', '/dev/fd/8', '/dev/fd/9'])
        await writeTarget(path, true, async ({ fd }) => writeSync(fd, 'to ' + path + '\\n'));`,
    );
    // 8 appends to a file that holds something, 9 is a file without a name: there is nothing to rename onto.
    const { status, stdout, stderr } = spawnSync(
      '/bin/sh',
      [
        '-euc',
        `echo older > appended; exec 8>> appended 9<> nameless; rm nameless
        (cd "$TOP" && "$NODE" --import tsx "$SCRIPT"); cat appended /dev/fd/9`,
      ],
      {
        encoding: 'utf8',
        cwd: directory,
        env: { ...process.env, TOP: resolve(import.meta.dirname, '../../..'), NODE: process.execPath, SCRIPT: script },
      },
    );
    assert.equal(status, 0, stderr);
    assert.equal(stdout, 'to /dev/stdout\nolder\nto /dev/fd/8\nto /dev/fd/9\n');
    assert.ok(lstatSync('/dev/stdout').isSymbolicLink());
    assert.deepEqual(readdirSync(directory).sort(), ['appended', 'script.mts']);
  });

  it('what cannot be opened says so', async (t) => {
    const directory = tempDir(t, 'target');
    await assert.rejects(put(join(directory, 'no/such/file')), { code: 'ENOENT' });
    await assert.rejects(put(directory), { code: 'EISDIR' });
    assert.deepEqual(readdirSync(directory), []);
  });

  it('a descriptor that chunks are written to stays open, also when that fails', async (t) => {
    const path = join(tempDir(t, 'target'), 'file');
    const file = await open(path, 'w');
    const reason = new Error('no more');
    async function* chunks(): AsyncGenerator<Uint8Array> {
      yield Buffer.from('one ');
      throw reason;
    }
    try {
      await assert.rejects(writeChunks(file.fd, chunks()), (error) => error === reason);
      await assert.rejects(
        writeChunks(file.fd, Readable.from([Buffer.from('x')]), AbortSignal.abort(reason)),
        (error) => error === reason,
      );
      await writeChunks(file.fd, Readable.from([Buffer.from('two')]));
    } finally {
      await file.close();
    }
    assert.equal(readFileSync(path, 'utf8'), 'one two');
  });
});
