/**
 * Every block of TypeScript in the README, in docs/ and in the doc comments of public names compiles, and runs; commands
 * of the README exist. Conventions (CONTRIBUTING.md, "Documentation"):
 *
 * - a `ts` block runs as a module of its own, in a directory that holds `layer.tar`, `base.tar`, `debian.tar` (an image
 *   archive with the name debian:12) and `oci-layout/`, against the compiled package;
 * - `ts no-run` says that a block is only compiled;
 * - paths below `/var/lib/` and `/run/` are moved into that directory;
 * - `localhost:5000` is a registry that has `base/debian:12`;
 * - the blocks of a page in docs/guides/ are one program, in the order of the page;
 * - the blocks of the README run twice in one directory, as a reader who tries again does;
 * - a block that imports nothing from `layerstore` is a fragment: what it names of the package is imported, and `store`,
 *   `images`, `base`, `layer` and `rw` are made for it where it uses them without declaring them.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { after, describe, test } from 'node:test';
import ts from 'typescript';
import type * as Api from '../../src/index.js';
import { buildTar } from '../../src/testing/index.js';
import { runUntilItSpeaks } from '../support/other-process.js';
import { makeTempDir, removeTempDir } from '../support/temp.js';

const top = resolve(import.meta.dirname, '../..');
// The package as it is published: `npm test` compiles before it runs.
const api = (await import(join(top, 'dist/index.js'))) as typeof Api;
const scratch = makeTempDir('docs');
after(() => removeTempDir(scratch));

// In a process of its own: this one waits for the programs that it runs.
const registry = await runUntilItSpeaks(`
  import { TestRegistry } from ${JSON.stringify(new URL('../support/registry.ts', import.meta.url).href)};
  console.log((await TestRegistry.start({ after: () => undefined })).host);
`);
after(() => registry.kill());

// A block that calls the suites runs tests of its own; they are to print text, not to report to the runner of this file.
const { NODE_TEST_CONTEXT: _context, ...rest } = process.env;
const environment = { ...rest, NODE_OPTIONS: '' };

interface Block {
  /** `docs/cli.md:12` */
  where: string;
  code: string;
  run: boolean;
}

/** Fenced blocks of one language; `stripped` takes the ` * ` of doc comments away. */
function blocks(file: string, language: 'ts' | 'sh'): Block[] {
  const comments = file.endsWith('.ts');
  const lines = readFileSync(join(top, file), 'utf8').split('\n');
  const found: Block[] = [];
  let open: { line: number; code: string[]; words: string[] } | undefined;
  for (const [i, raw] of lines.entries()) {
    if (comments && !/^\s*\*/.test(raw)) continue;
    const line = comments ? raw.replace(/^\s*\* ?/, '') : raw;
    const fence = /^\s*```(.*)$/.exec(line);
    if (fence === null) open?.code.push(line);
    else if (open === undefined) open = { line: i + 1, code: [], words: (fence[1] ?? '').trim().split(' ') };
    else {
      if (open.words[0] === language) {
        found.push({
          where: `${file}:${open.line}`,
          code: open.code.join('\n'),
          run: !open.words.includes('no-run'),
        });
      }
      open = undefined;
    }
  }
  assert.equal(open, undefined, `${file} has a block that does not end`);
  return found;
}

function filesBelow(folder: string, ending: string): string[] {
  return readdirSync(join(top, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(ending) && !name.startsWith('api/'))
    .map((name) => join(folder, name))
    .sort();
}

const pages = ['README.md', 'CONTRIBUTING.md', ...filesBelow('docs', '.md')];
const sources = filesBelow('src', '.ts');

/** What a fragment may use without declaring it, in the order in which it is made. */
const GIVEN: readonly (readonly [string, string, readonly string[]])[] = [
  ['store', "const store = await openStore({ root: 'fragment' });", []],
  ['images', 'const images = await openImages(store);', ['store']],
  ['base', "const base = await store.register({ path: 'base.tar' });", ['store']],
  ['layer', "const layer = await store.register({ path: 'layer.tar' }, base.chainID);", ['base', 'store']],
  ['rw', "const rw = await store.createRWLayer('fragment', layer.chainID);", ['layer', 'base', 'store']],
];

/** A module that stands alone: fragments get their imports and what they take for granted. */
function complete(code: string): string {
  const moved = code.replaceAll(/(['"`])\/(var\/lib|run)\//g, '$1./$2/').replaceAll('localhost:5000', registry.said);
  if (/from 'layerstore'/.test(code)) return moved;
  const uses = (name: string): boolean => new RegExp(`(?<![.\\w'/-])${name}(?![\\w'-])(?!:)`).test(moved);
  const declares = (name: string): boolean =>
    new RegExp(`\\b(const|let|using|function)\\s+(\\[\\s*)?${name}\\b`).test(moved);
  const wanted = new Set(GIVEN.filter(([name]) => uses(name) && !declares(name)).map(([name]) => name));
  for (const [name, , needs] of [...GIVEN].reverse()) if (wanted.has(name)) for (const need of needs) wanted.add(need);
  const prelude = GIVEN.filter(([name]) => wanted.has(name)).map(([, line]) => line);
  const text = `${prelude.join('\n')}\n${moved}`;
  const imported = Object.keys(api).filter((name) => new RegExp(`\\b${name}\\b`).test(text));
  const epilogue = wanted.has('store') ? ['await store.close();'] : [];
  return [`import { ${imported.join(', ')} } from 'layerstore';`, ...prelude, moved, ...epilogue, 'export {};'].join(
    '\n',
  );
}

/** Layers, an image archive and an OCI layout, and the package as a program finds it. */
async function prepare(): Promise<string> {
  const template = join(scratch, 'template');
  mkdirSync(join(template, 'var/lib'), { recursive: true });
  mkdirSync(join(template, 'run'));
  writeFileSync(
    join(template, 'base.tar'),
    buildTar([
      { name: 'etc/', type: '5' },
      { name: 'etc/os-release', content: 'ID=example\n' },
      { name: 'etc/motd', content: 'welcome\n' },
      { name: 'etc/passwd', content: 'root:x:0:0::/root:/bin/sh\n' },
    ]),
  );
  writeFileSync(
    join(template, 'layer.tar'),
    buildTar([
      { name: 'app/', type: '5' },
      { name: 'app/main.js', content: '1' },
    ]),
  );
  mkdirSync(join(scratch, 'node_modules/@types'), { recursive: true });
  symlinkSync(top, join(scratch, 'node_modules/layerstore'));
  symlinkSync(join(top, 'node_modules/@types/node'), join(scratch, 'node_modules/@types/node'));
  writeFileSync(join(scratch, 'package.json'), '{ "type": "module" }');
  const { hashFile, openImages, openStore } = api;
  const ids = [await hashFile(join(template, 'base.tar')), await hashFile(join(template, 'layer.tar'))].map(
    (each) => each.diffID,
  );
  const config = JSON.stringify({
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: { Cmd: ['/bin/sh'] },
    rootfs: { type: 'layers', diff_ids: ids },
  });
  const manifest = [{ Config: 'config.json', RepoTags: ['debian:12'], Layers: ['base.tar', 'layer.tar'] }];
  const files = { 'config.json': config, 'manifest.json': JSON.stringify(manifest) };
  writeFileSync(
    join(template, 'debian.tar'),
    buildTar([
      ...['base.tar', 'layer.tar'].map((name) => ({ name, content: readFileSync(join(template, name)) })),
      ...Object.entries(files).map(([name, content]) => ({ name, content })),
    ]),
  );
  const store = await openStore({ root: join(scratch, 'made') });
  const images = await openImages(store);
  await images.load({ path: join(template, 'debian.tar') });
  await images.save('debian:12', { path: `${join(template, 'oci-layout')}/` }, { format: 'oci' });
  await images.push('debian:12', `${registry.said}/base/debian:12`);
  await store.close();
  return template;
}

/** The blocks of one page or source; those of a guide joined to one program, as a reader joins them. */
function programs(file: string): Block[] {
  const found = blocks(file, 'ts');
  if (!file.startsWith('docs/guides/')) return found;
  const joined = found.filter(({ run }) => run);
  const code = joined.map((block) => block.code).join('\n\n');
  return [
    ...found.filter(({ run }) => !run),
    ...(joined.length === 0 ? [] : [{ where: `${file}, all blocks`, code, run: true }]),
  ];
}

const all = [...pages, ...sources].flatMap(programs);

await describe('blocks of TypeScript', async () => {
  const template = await prepare();
  const modules = all.map((block, i) => {
    const file = join(scratch, `block-${i}.ts`);
    const code = complete(block.code);
    writeFileSync(file, code);
    return { ...block, code, file };
  });

  test('there are some in each place', () => {
    for (const place of ['README.md', 'docs/guides/', 'docs/observability.md', 'src/store/', 'src/image/'])
      assert.ok(
        all.some(({ where }) => where.startsWith(place)),
        place,
      );
  });

  test('all compile under the strictest options', () => {
    const config = {
      compilerOptions: {
        target: 'es2023',
        lib: ['es2023', 'esnext.disposable'],
        module: 'nodenext',
        moduleDetection: 'force',
        strict: true,
        exactOptionalPropertyTypes: true,
        types: ['node'],
        noEmit: true,
        skipLibCheck: true,
        preserveSymlinks: false,
      },
      include: ['block-*.ts'],
    };
    writeFileSync(join(scratch, 'tsconfig.json'), JSON.stringify(config));
    const { status, stdout } = spawnSync(
      process.execPath,
      [join(top, 'node_modules/typescript/bin/tsc'), '-p', scratch, '--pretty', 'false'],
      { encoding: 'utf8', cwd: scratch },
    );
    const named = stdout.replaceAll(/block-(\d+)\.ts/g, (text, i: string) => all[Number(i)]?.where ?? text);
    assert.equal(status, 0, named);
  });

  for (const [i, { where, code, run }] of modules.entries()) {
    if (!run) continue;
    test(`${where} runs`, () => {
      const directory = join(scratch, `run-${i}`);
      cpSync(template, directory, { recursive: true });
      const { outputText } = ts.transpileModule(code, {
        compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
      });
      writeFileSync(join(directory, 'block.mjs'), outputText);
      for (let time = where.startsWith('README.md') ? 2 : 1; time > 0; time--) {
        const { status, stdout, stderr, signal } = spawnSync(process.execPath, ['block.mjs'], {
          cwd: directory,
          encoding: 'utf8',
          timeout: 600_000,
          env: environment,
        });
        assert.equal(status, 0, `${signal ?? ''}\n${stdout}\n${stderr}\n--- ${where}\n${code}`);
      }
    });
  }
});

describe('commands in pages', () => {
  const scripts = (JSON.parse(readFileSync(join(top, 'package.json'), 'utf8')) as { scripts: Record<string, string> })
    .scripts;
  const help = execFileSync(process.execPath, [join(top, 'dist/cli/main.js'), '--help'], { encoding: 'utf8' });
  const commands = [...help.matchAll(/^ {2}([a-z][a-z-]*) {2}/gm)].map((match) => match[1]);

  for (const { where, code } of pages.flatMap((file) => blocks(file, 'sh'))) {
    test(`${where} names what there is`, () => {
      for (const line of code.split('\n')) {
        const script = /\bnpm (?:run )?(start|test|[a-z]+:?[a-z]*)\b/.exec(line)?.[1];
        if (script !== undefined && !['install', 'ci', 'pack'].includes(script)) assert.ok(script in scripts, line);
        const command = /\blayerstore ((?:--[a-z]+ [^ ]+ |--json )*)([a-z][a-z-]*)/.exec(line)?.[2];
        if (command !== undefined && !/npm install|cd layerstore/.test(line))
          assert.ok(commands.includes(command) || command === 'help', line);
        const file = /\bnode ((?:--import tsx )?)([\w/.-]+\.(?:mjs|ts))/.exec(line)?.[2];
        if (file !== undefined) assert.doesNotThrow(() => readFileSync(join(top, file)), line);
      }
    });
  }

  test('links between pages lead somewhere', () => {
    for (const page of pages) {
      for (const [, target = ''] of readFileSync(join(top, page), 'utf8').matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)) {
        if (/^[a-z]+:/.test(target)) continue;
        const path = resolve(join(top, page), '..', target);
        if (relative(top, path).startsWith('docs/api') || relative(top, path).startsWith('bench/results')) continue;
        assert.doesNotThrow(
          () => readdirSync(resolve(path, '..')).includes(path.split('/').at(-1) ?? '') || assert.fail(),
          `${page}: ${target}`,
        );
      }
    }
  });
});
