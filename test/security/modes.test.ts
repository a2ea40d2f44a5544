/** Who may reach what a store makes: nobody but its owner writes anywhere, whatever the umask, and nobody else looks in. */
import assert from 'node:assert/strict';
import { chmodSync, chownSync, lstatSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { test, type TestContext } from 'node:test';
import { LayerStoreError } from '../../src/errors.js';
import { openImages } from '../../src/image/index.js';
import { openStore } from '../../src/store/open.js';
import { buildTar } from '../../src/testing/tar-builder.js';
import { tempDir } from '../support/temp.js';
import { sampleConfig, tar } from '../unit/image/archives.js';
import { ENGINES } from './support.js';

const LAYER = buildTar([
  { name: 'd', type: '5', mode: 0o777 },
  { name: 'd/setuid', content: 'x', mode: 0o4777 },
  { name: 'implied/file', content: 'x', mode: 0o666 },
]);

/** Everything below the root but what archives put into layers. */
function* ownFiles(
  root: string,
  at = root,
): Generator<{ path: string; mode: number; directory: boolean; link: boolean }> {
  for (const name of readdirSync(at)) {
    const path = join(at, name);
    const stat = lstatSync(path);
    yield {
      path: relative(root, path),
      mode: stat.mode & 0o7777,
      directory: stat.isDirectory(),
      link: stat.isSymbolicLink(),
    };
    // The kernel's own: work/work has no permission at all.
    const content =
      name === 'work' || name === 'diff' || name === 'merged' || /^vfs\/dir\/[^/]+$/.test(relative(root, path));
    if (stat.isDirectory() && !content) yield* ownFiles(root, path);
  }
}

function imageArchive(): Promise<Buffer> {
  const manifest = [{ Config: 'config.json', RepoTags: ['some:tag'], Layers: ['layer.tar'] }];
  return tar([
    ['config.json', sampleConfig([LAYER])],
    ['layer.tar', LAYER],
    ['manifest.json', JSON.stringify(manifest)],
  ]);
}

/** A root with layers, a reference, an RW layer and an image, made under this umask. */
async function rootUnder(
  t: TestContext,
  umask: number,
  engine: 'native' | 'js',
  driver: 'overlay2' | 'vfs',
): Promise<string> {
  const root = join(tempDir(t, 'modes'), 'root');
  const before = process.umask(umask);
  try {
    const store = await openStore({ root, engine, driver });
    const layer = await store.register(Readable.from([LAYER], { objectMode: false }));
    await store.retain(layer.chainID, 'kept');
    const rw = await store.createRWLayer('box', layer.chainID, { initFunc: () => undefined });
    const child = await store.commit(rw);
    await (await child.view())[Symbol.asyncDispose]();
    await rw.mount();
    await rw.unmount();
    const images = await openImages(store);
    await images.load(Readable.from([await imageArchive()], { objectMode: false }));
    await store.close();
  } finally {
    process.umask(before);
  }
  return root;
}

/** Each thing's kind and mode, ids left out. */
function modesIn(root: string): string[] {
  return [...ownFiles(root)]
    .filter(({ link }) => !link)
    .map(({ path, mode, directory }) => {
      const name = path.replace(/[0-9a-f]{32,}/g, 'ID').replace(/\bl\/[A-Z0-9]{26}/, 'l/ID');
      return `${directory ? 'd' : '-'}${mode.toString(8)} ${name}`;
    })
    .sort();
}

for (const engine of ENGINES) {
  for (const driver of ['overlay2', 'vfs'] as const) {
    test(`the umask changes no mode of a store's files (${engine}, ${driver})`, async (t) => {
      const open = modesIn(await rootUnder(t, 0, engine, driver));
      assert.ok(open.length > 10);
      assert.deepEqual(modesIn(await rootUnder(t, 0o777, engine, driver)), open);
    });
  }
}

for (const engine of ENGINES) {
  for (const driver of ['overlay2', 'vfs'] as const) {
    for (const umask of [0, 0o077]) {
      test(`modes of a store's files (${engine}, ${driver}, umask ${umask.toString(8)})`, async (t) => {
        const root = await rootUnder(t, umask, engine, driver);
        assert.equal(
          lstatSync(root).mode & 0o7777,
          0o710,
          'only its owner lists the root, and only his group passes through',
        );
        const seen = [...ownFiles(root)];
        assert.ok(seen.length > 10);
        for (const { path, mode, directory, link } of seen) {
          if (link) continue;
          assert.equal(mode & 0o022, 0, `${path} is ${mode.toString(8)}: others may write`);
          assert.equal(mode & 0o7000, 0, `${path} is ${mode.toString(8)}`);
          assert.equal(mode & (directory ? 0o700 : 0o600), directory ? 0o700 : 0o600, `${path} is ${mode.toString(8)}`);
        }
        assert.equal(lstatSync(join(root, 'layerstore')).mode & 0o7777, 0o700);
      });
    }
  }
}

test('a root of another user, or one that others may write to, is refused unless asked for', async (t) => {
  const root = join(tempDir(t, 'modes'), 'root');
  const refused = (words: RegExp) => (error: unknown) =>
    LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT') &&
    words.test(error.message) &&
    error.message.includes('allowWritableRoot');
  const open = (more: { allowWritableRoot?: boolean; readOnly?: boolean } = {}) =>
    openStore({ root, engine: 'js', driver: 'vfs', ...more });
  mkdirSync(root);
  chownSync(root, 12345, 12345);
  await assert.rejects(open(), refused(/belongs to user 12345/));
  await (await open({ allowWritableRoot: true })).close();
  chownSync(root, 0, 0);
  await (await open()).close();
  // Each of the store's own directories counts, for readers too.
  for (const inside of ['layerstore', 'vfs', 'image']) {
    const path = join(root, inside);
    const mode = lstatSync(path).mode & 0o7777;
    chmodSync(path, 0o777);
    await assert.rejects(open(), refused(/others may write/), inside);
    await assert.rejects(open({ readOnly: true }), refused(/others may write/), `${inside}, for a reader`);
    chmodSync(path, mode);
    chownSync(path, 12345, 0);
    await assert.rejects(open(), refused(/belongs to user 12345/), inside);
    chownSync(path, 0, 0);
  }
  await (await open()).close();
  // A link to the root does not hide what it leads to.
  symlinkSync(root, `${root}-link`);
  chmodSync(root, 0o777);
  await assert.rejects(openStore({ root: `${root}-link`, engine: 'js', driver: 'vfs' }), refused(/others may write/));
});
