/** The pages of `layerstore report` in a real browser: what they show, keys, names of strangers, access for everybody. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, test, type TestContext } from 'node:test';
import { pack } from 'tar-stream';
import type { LayerData } from '../../src/cli/report/data.js';
import { reportPage } from '../../src/cli/report/page.js';
import { openImages, openStore } from '../../src/index.js';
import { tempDir } from '../support/temp.js';
import { Chromium, type Page } from './chromium.js';

const top = join(import.meta.dirname, '../..');
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const TABS = ['Files', 'Treemap', 'Waste', 'Duplicates', 'Biggest files', 'Compare'];
const WIDTHS = [1280, 768, 360];

/** Names that would run, or break the page, if they ever became markup, part of a script or a key of an object. */
const HOSTILE = [
  '<img src=x onerror=hacked=1>',
  '<b>bold',
  'end</script><script>hacked=2</script>',
  '"\'&quot;',
  'turned\u202ename',
  'two\nlines',
  '__proto__',
  'constructor',
  '<!--',
];

let browser: Chromium;
before(async () => {
  browser = await Chromium.start();
});
after(() => browser.close());

async function tar(files: Readonly<Record<string, string>>): Promise<Readable> {
  const packed = pack();
  for (const [name, content] of Object.entries(files)) packed.entry({ name, mtime: new Date(0) }, content);
  packed.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of packed) chunks.push(chunk as Buffer);
  return Readable.from([Buffer.concat(chunks)], { objectMode: false });
}

/** A page that the command made of two images: `app:2` is `app:1` and a layer more. */
async function openReport(t: TestContext): Promise<Page> {
  const directory = tempDir(t, 'report');
  const root = join(directory, 'root');
  {
    await using store = await openStore({ root, driver: 'vfs', durability: 'relaxed' });
    const images = await openImages(store);
    const base = await store.register(
      await tar({
        'etc/motd': 'hello\n',
        'usr/lib/big.so': 'b'.repeat(40_000),
        'usr/lib/copy.so': 'b'.repeat(40_000),
        'var/cache/index': 'i'.repeat(9_000),
        ...Object.fromEntries(HOSTILE.map((name) => [`odd/${name.replaceAll('/', '')}`, name])),
      }),
    );
    await images.create({ chainID: base.chainID, names: ['app:1'], comment: '<img src=x onerror=hacked=3>' });
    const next = await store.register(
      await tar({ 'etc/motd': 'changed\n', 'var/cache/.wh.index': '', 'srv/new': 'new' }),
      base.chainID,
    );
    await images.create({ base: 'app:1', chainID: next.chainID, names: ['app:2'] });
  }
  const path = join(directory, 'page.html');
  const words = ['dist/cli/main.js', '--root', root, 'report', 'app:2', '--compare', 'app:1', '-o', path];
  assert.equal(execFileSync(process.execPath, words, { cwd: top, encoding: 'utf8' }).trim(), path);
  const page = await browser.page();
  await page.open(path);
  return page;
}

const text = (page: Page, selector: string): Promise<string> =>
  page.evaluate(`document.querySelector(${JSON.stringify(selector)}).innerText`);
/** What a row says: `NAME, STATUS, SIZE, DETAILS`; of directories without the slash. */
const ROW_TEXT = `(row) => ['label', 'status', 'size', 'details']
  .map((part) => row.querySelector('.' + part).textContent.replace(/\\/$/, ''))
  .filter((part) => part !== '').join(', ')`;
const rows = (page: Page, panel = 0): Promise<string[]> =>
  page.evaluate(`[...document.querySelectorAll('#panel-${panel} .row')].map(${ROW_TEXT})`);
const openTab = (page: Page, title: string): Promise<void> =>
  page.evaluate(`document.getElementById('tab-${TABS.indexOf(title)}').click()`);

async function search(page: Page, words: string): Promise<void> {
  await page.evaluate(`{ const field = document.querySelector('#panel-0 input'); field.focus(); field.select(); }`);
  await page.type(words);
}

test('layers, files, search, folding, keys', async (t) => {
  const page = await openReport(t);
  await page.resize(1280, 900, 'light');
  assert.equal(await text(page, 'h1'), 'app:2');
  assert.equal(await page.evaluate('document.title'), 'app:2 – image report');
  assert.match(await text(page, '.facts'), /2 layers[^]*9\.01 kB written/);
  assert.deepEqual(
    (await rows(page)).map((row) => row.split(',')[0]),
    ['usr', 'odd', 'etc', 'srv', 'var'].filter((name) => name !== 'var'),
  );

  await search(page, 'BIG.so');
  assert.deepEqual(await rows(page), ['usr, 80.0 kB, 2 files', 'lib, 80.0 kB, 2 files', 'big.so, 40.0 kB, layer 1']);
  assert.equal(await text(page, '#panel-0 .summary'), '1 file, 40.0 kB');
  await search(page, 'nowhere to be found');
  assert.deepEqual([await rows(page), await text(page, '#panel-0 .nothing')], [[], 'No file matches.']);
  await page.evaluate(
    `{ const field = document.querySelector('#panel-0 input'); field.value = ''; field.dispatchEvent(new Event('input')); }`,
  );

  // By keys alone: usr, unfold, its child, unfold, the first file; then back up and folded again.
  await page.evaluate(`document.querySelector('#panel-0 .tree').focus()`);
  const active = (): Promise<string> =>
    page.evaluate(
      `(${ROW_TEXT})(document.getElementById(document.querySelector('#panel-0 .tree').getAttribute('aria-activedescendant')))`,
    );
  for (const key of ['Home', 'ArrowRight', 'ArrowRight', 'ArrowRight', 'ArrowDown']) await page.press(key);
  assert.match(await active(), /^big\.so, 40/);
  for (const key of ['ArrowLeft', 'ArrowLeft', 'ArrowLeft']) await page.press(key);
  assert.match(await active(), /^usr,/);
  assert.equal((await rows(page)).length, 3 + 2, 'usr is still unfolded, lib is not');
  await page.press('Enter');
  assert.equal((await rows(page)).length, 4);
  await page.evaluate(`document.querySelector('#panel-0 .row').click()`);
  assert.equal((await rows(page)).length, 5, 'a click unfolds');

  await page.evaluate(`document.querySelectorAll('.layers button')[2].click()`);
  assert.match(
    await text(page, '.details-of-layer'),
    /Layer 2 of 2[^]*Adds 1 file, 3 B; changes 1 file, 8 B; removes 1 file, 9\.00 kB/,
  );
  await page.evaluate(
    `[...document.querySelectorAll('#panel-0 button')].find((each) => each.innerText === 'Unfold all').click()`,
  );
  assert.deepEqual(
    (await rows(page)).filter((row) => row.includes('layer')),
    ['index, removed, 9.00 kB, layer 2', 'motd, changed, 8 B, layer 2', 'new, added, 3 B, layer 2'],
  );
  assert.deepEqual(page.problems, []);
});

test('treemap, waste, duplicates, comparison', async (t) => {
  const page = await openReport(t);
  await page.resize(1280, 900, 'light');
  await page.evaluate(`document.getElementById('tab-0').focus()`);
  await page.press('ArrowRight');
  assert.equal(await page.evaluate('document.activeElement.innerText'), 'Treemap');
  await page.resize(1280, 900, 'light');
  await page.evaluate(`document.querySelector('.map .folder').click()`);
  assert.deepEqual(await page.evaluate(`[...document.querySelectorAll('.way button')].map((each) => each.innerText)`), [
    '/',
    'usr',
  ]);
  assert.equal(await page.evaluate('document.activeElement.innerText'), 'usr', 'the path has the focus');
  await openTab(page, 'Waste');
  assert.match(await text(page, '#panel-2'), /\/var\/cache\/index\s+9\.00 kB\s+1/);
  await openTab(page, 'Duplicates');
  assert.match(
    await text(page, '#panel-3'),
    /\/usr\/lib\/big\.so \(layer 1\)\s+\/usr\/lib\/copy\.so \(layer 1\)\s+40\.0 kB\s+40\.0 kB\s+2/,
  );
  await openTab(page, 'Compare');
  assert.match(
    await text(page, '#panel-5'),
    /Added 1 file \(3 B\), changed 1 file \(8 B\), removed 1 file \(9\.00 kB\)\./,
  );
  await page.evaluate(
    `{ const [from] = document.querySelectorAll('#panel-5 select'); from.value = '0'; from.dispatchEvent(new Event('change')); }`,
  );
  assert.match(await text(page, '#panel-5'), /Added 13 files .* changed 0 files \(0 B\), removed 0 files/);
  assert.deepEqual(page.problems, []);
});

test('names of strangers are text, and the page could not run or fetch anything of theirs', async (t) => {
  const page = await openReport(t);
  await search(page, '/odd/');
  const labels = (await rows(page)).slice(1).map((row) => row.replace(/, \d+ B, layer 1$/, ''));
  const shown = HOSTILE.map((name) => name.replaceAll('/', '').replace('\u202e', '\\u202e').replace('\n', '\\u000a'));
  assert.deepEqual(labels.sort(), shown.sort());
  assert.equal(await page.evaluate('typeof hacked'), 'undefined');
  assert.equal(await page.evaluate(`document.querySelectorAll('img, b, script[src], iframe').length`), 0);
  assert.equal(await page.evaluate(`document.querySelectorAll('script').length`), 2);
  assert.deepEqual(page.problems, []);
  const tried = `(() => { try { document.body.innerHTML = '<b>'; return 'done'; } catch (error) { return error.name; } })()`;
  assert.equal(await page.evaluate(tried), 'TypeError', 'the policy takes no markup from scripts');
  assert.equal(await page.evaluate(`fetch('https://example.invalid/').then(() => 'done', () => 'refused')`), 'refused');
  assert.ok((page.problems as string[]).some((problem) => problem.includes('Content Security Policy')));
});

test('every view at three widths, light and dark, is usable by everybody', async (t) => {
  const page = await openReport(t);
  const found = new Set<string>();
  for (const width of WIDTHS) {
    for (const scheme of ['light', 'dark'] as const) {
      for (const title of TABS) {
        await openTab(page, title);
        await page.resize(width, 900, scheme);
        const wide = await page.evaluate<number>('document.documentElement.scrollWidth - innerWidth');
        if (wide > 0) found.add(`${title} at ${width}: ${wide} pixels too wide`);
        assert.deepEqual(page.problems, [], title);
        if (await page.evaluate(`typeof axe === 'undefined'`)) await page.evaluate(`${axe}; undefined`);
        const violations = await page.evaluate<{ id: string; nodes: { html: string }[] }[]>(
          `axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => JSON.parse(JSON.stringify(violations)))`,
        );
        for (const { id, nodes } of violations) for (const { html } of nodes) found.add(`${title}: ${id}: ${html}`);
      }
    }
  }
  assert.deepEqual([...found], []);
});

test('100,000 files: few rows are elements, the last one is a key away, a search finds one', async (t) => {
  const names = [''];
  const parents = [0];
  const layer: LayerData = {
    ...{ chainID: 'sha256:0', diffID: 'sha256:0', createdBy: 'RUN make', comment: '' },
    ...{ added: { files: 100_000, bytes: 100_000 }, changed: { files: 0, bytes: 0 }, removed: { files: 0, bytes: 0 } },
    ...{ nodes: [], kinds: 'a'.repeat(100_000), sizes: [], contents: [] },
  };
  for (let directory = 0; directory < 100; directory++) {
    const parent = names.push(`directory-${directory}`) - 1;
    parents.push(0);
    for (let file = 0; file < 1000; file++) {
      layer.nodes.push(names.push(`file-${file}`) - 1);
      parents.push(parent);
      layer.sizes.push(1);
      layer.contents.push(0);
    }
  }
  const image = {
    ...{ name: 'many:1', id: 'sha256:0', created: '', platform: '', bytes: 100_000, wastedBytes: 0, efficiency: 1 },
    ...{ layers: [layer], wasted: [], duplicates: [], biggest: [] },
  };
  const path = join(tempDir(t, 'report'), 'many.html');
  writeFileSync(path, reportPage({ kind: 'image', names, parents, images: [image] }, new Date(0)));
  const page = await browser.page();
  await page.open(path);
  await page.resize(1280, 900, 'dark');
  assert.equal(await text(page, '#panel-0 .summary'), '100,000 files, 100 kB');
  await page.evaluate(
    `[...document.querySelectorAll('#panel-0 button')].find((each) => each.innerText === 'Unfold all').click()`,
  );
  assert.equal(await page.evaluate(`document.querySelector('#panel-0 .space').offsetHeight`), 100_100 * 28);
  await page.evaluate(`document.querySelector('#panel-0 .tree').focus()`);
  await page.press('End');
  await page.resize(1280, 900, 'dark');
  const shown = await rows(page);
  assert.ok(shown.length > 10 && shown.length < 200, `${shown.length} rows are elements`);
  assert.equal(shown.at(-1), 'file-999, 1 B, layer 1');
  await search(page, 'directory-42/file-777');
  assert.equal((await rows(page)).at(-1), 'file-777, 1 B, layer 1');
  assert.deepEqual(page.problems, []);
});
