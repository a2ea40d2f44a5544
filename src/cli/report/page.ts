/**
 * A report as one page that needs nothing else: styles, scripts and data are in it, and its policy lets it load nothing. What
 * strangers wrote, names of files above all, is in the data alone; the scripts show it as text.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { packageVersion } from '../version.js';
import type { Report } from './data.js';

/** Where the page's parts are, from `src/` as from `dist/`. */
const PARTS = new URL('../../../report-page/', import.meta.url);
/** In the order in which they need one another. */
const SCRIPTS = ['dom.js', 'file-tree.js', 'tree-view.js', 'treemap.js', 'image-page.js', 'start.js'];

export function reportPage(report: Report, made: Date): string {
  const style = part('page.css');
  const script = SCRIPTS.map(part).join('\n');
  const policy = [
    "default-src 'none'",
    `style-src ${hashOf(style)}`,
    `script-src ${hashOf(script)}`,
    "base-uri 'none'",
    "form-action 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join('; ');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width">
<meta name="referrer" content="no-referrer">
<title>layerstore report</title>
<style>${style}</style>
</head>
<body>
<main><p>This page is drawn by its own script: allow scripts to see it. It loads nothing.</p></main>
<footer>Made by layerstore ${packageVersion()} on ${made.toISOString().slice(0, 10)}.</footer>
<script type="application/json" id="data">${dataBlock(report)}</script>
<script>${script}</script>
</body>
</html>
`;
}

function part(name: string): string {
  return readFileSync(new URL(name, PARTS), 'utf8');
}

function hashOf(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
}

/** JSON without the one character by which text could end the block that holds it. */
function dataBlock(report: Report): string {
  return JSON.stringify(report).replaceAll('<', '\\u003c');
}
