/** Links, FIFOs and directories in place of the store's own files: nothing hangs, and nothing behind a link is touched. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openImages } from '../../../src/image/index.js';
import { Bench, streamOf, tarOf } from './support.js';

const KINDS: Record<string, (path: string, outside: string) => Promise<unknown>> = {
  'a FIFO': async (path) => execFileSync('mkfifo', [path]),
  'a link': (path, outside) => symlink(outside, path),
  'a directory': (path) => mkdir(path),
};

const OUTSIDE = '{"version":1,"references":[]}\n';

for (const [kind, make] of Object.entries(KINDS)) {
  for (const name of ['references.json', 'version', 'intents/0123']) {
    test(`${kind} in place of ${name} is set aside or dropped`, { timeout: 20_000 }, async (t) => {
      const bench = await Bench.make(t);
      const seed = await bench.open();
      const { chainID } = await seed.register(streamOf(tarOf('a')));
      await seed.retain(chainID, 'kept');
      await seed.close();
      const outside = `${bench.root}.outside`;
      await writeFile(outside, OUTSIDE);
      const path = join(bench.root, 'layerstore', name);
      await rm(path, { force: true });
      await make(path, outside);
      await (await bench.open({ readOnly: true })).close();
      const store = await bench.open();
      assert.equal(store.map().size, 1);
      // Lost references keep everything; any other file of ours says nothing about layers.
      assert.equal((await store.gc()).refused !== undefined, name === 'references.json');
      await store.close();
      assert.equal(await readFile(outside, 'utf8'), OUTSIDE);
      await (await bench.open()).close();
    });
  }

  test(`${kind} in place of the lock is refused`, { timeout: 20_000 }, async (t) => {
    const bench = await Bench.make(t);
    await (await bench.open()).close();
    const outside = `${bench.root}.outside`;
    await writeFile(outside, OUTSIDE);
    const path = join(bench.root, 'layerstore', 'lock');
    await rm(path);
    await make(path, outside);
    for (const engine of ['js', 'native'] as const)
      await assert.rejects(bench.open({ engine }), { code: 'ERR_SYSTEM' });
    assert.equal(await readFile(outside, 'utf8'), OUTSIDE);
  });

  test(`${kind} in place of Docker's image names is told`, { timeout: 20_000 }, async (t) => {
    const bench = await Bench.make(t);
    const store = await bench.open();
    const directory = join(bench.root, 'image', 'memory');
    await mkdir(directory, { recursive: true });
    await writeFile(`${bench.root}.outside`, '{"Repositories":{}}');
    await make(join(directory, 'repositories.json'), `${bench.root}.outside`);
    const images = await openImages(store);
    assert.match(images.problems().join(), /repositories\.json/);
  });
}
