/** What the formatter checks: `.prettierignore` names generated files by their whole path, and hides no source. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { getFileInfo } from 'prettier';

const top = resolve(import.meta.dirname, '../../..');

test('every source file is checked by Prettier', async () => {
  const files = ['bench', 'examples', 'scripts', 'src', 'test'].flatMap((room) =>
    readdirSync(join(top, room), { recursive: true, encoding: 'utf8' }).map((name) => join(room, name)),
  );
  const sources = files.filter((name) => /\.(ts|mjs)$/.test(name));
  assert.ok(sources.includes('src/engine/native/index.ts'));
  const hidden: string[] = [];
  for (const name of sources) {
    const { ignored } = await getFileInfo(join(top, name), { ignorePath: join(top, '.prettierignore') });
    if (ignored) hidden.push(name);
  }
  assert.deepEqual(hidden, []);
});
