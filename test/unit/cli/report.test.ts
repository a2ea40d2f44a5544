/** The page of a report as text: its policy, its data. What a browser makes of it is test/browser's business. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { imageReport, type Report } from '../../../src/cli/report/data.js';
import { reportPage } from '../../../src/cli/report/page.js';
import type { AnalyzedFile, Image, ImageAnalysis } from '../../../src/index.js';

const file = (path: string, size: number, crc64: string | undefined): AnalyzedFile => ({
  ...{ path, kind: 'add', type: 'file', size, crc64 },
});

function analyzed(name: string, files: AnalyzedFile[]): { image: Image; analysis: ImageAnalysis } {
  const none = { files: 0, bytes: 0 };
  const layer = { chainID: 'sha256:c', diffID: 'sha256:d', history: { created_by: 7 }, added: none, changed: none };
  const analysis = { layers: [{ ...layer, removed: none, files }], bytes: 1, wastedBytes: 0, efficiency: 1 };
  return {
    image: { id: 'sha256:1', names: [name], config: { os: 'linux', architecture: ['odd'] } } as unknown as Image,
    analysis: { ...analysis, wasted: [], duplicates: [], biggest: [] } as unknown as ImageAnalysis,
  };
}

const sample = (): Report =>
  imageReport([
    analyzed('a:1', [file('d/x<script><!--', 5, 'aa'), file('d/y', 5, 'bb'), file('__proto__', 0, undefined)]),
    analyzed('b:1', [file('d/y', 5, 'aa'), file('d/x<script><!--', 6, 'aa')]),
  ]);

test('paths are a tree, and equal contents have equal numbers in both images', () => {
  const { names, parents, images } = sample();
  assert.deepEqual(names, ['', 'd', 'x<script><!--', 'y', '__proto__']);
  assert.deepEqual(parents, [0, 0, 1, 1, 0]);
  const layers = images.map(({ layers: [layer] }) => [layer?.nodes, layer?.kinds, layer?.sizes, layer?.contents]);
  assert.deepEqual(layers, [
    [[2, 3, 4], 'aaa', [5, 5, 0], [1, 2, 0]],
    [[3, 2], 'aa', [5, 6], [1, 3]],
  ]);
  // What is no text in a configuration is left out.
  assert.deepEqual([images[0].platform, images[0].created, images[0].layers[0]?.createdBy], ['linux', '', '']);
});

test('the policy names exactly the styles and scripts of the page; data cannot end its block', () => {
  const page = reportPage(sample(), new Date(0));
  const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(page)?.[1] ?? '';
  assert.match(policy, /^default-src 'none'; .*require-trusted-types-for 'script'; trusted-types 'none'$/);
  const style = /<style>([^]*?)<\/style>/.exec(page)?.[1] ?? '';
  const [data, script] = [...page.matchAll(/<script[^>]*>([^]*?)<\/script>/g)].map(([, text = '']) => text);
  const hash = (text = ''): string => `sha256-${createHash('sha256').update(text).digest('base64')}`;
  assert.ok(policy.includes(`style-src '${hash(style)}'`) && policy.includes(`script-src '${hash(script)}'`));
  assert.ok(data !== undefined && !data.includes('<'));
  assert.deepEqual(JSON.parse(data), sample());
  assert.doesNotMatch(script ?? '', /innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(/);
  assert.doesNotMatch(page, /https?:\/\//);
});

test('a directory with more names than a call takes arguments can be removed by a layer', () => {
  const count = 300_000;
  const files = Array.from({ length: count }, (_, index) => file(`d/${index}`, 1, undefined));
  const { names, parents } = imageReport([analyzed('a:1', files)]);
  const part = (name: string): string => readFileSync(new URL(`../../../report-page/${name}`, import.meta.url), 'utf8');
  const layers = [
    {
      nodes: Array.from({ length: count }, (_, index) => index + 2),
      kinds: 'a'.repeat(count),
      sizes: [],
      contents: [],
    },
    { nodes: [1], kinds: 'd', sizes: [], contents: [] },
  ];
  const left = (layersOfImage: number): unknown =>
    runInNewContext(
      `${part('dom.js')}\n${part('file-tree.js')}\nState.after(new Paths(names, parents), layers, ${layersOfImage}).layer.filter(Boolean).length`,
      { names, parents, layers },
    );
  assert.deepEqual([left(1), left(2)], [count, 0]);
});
