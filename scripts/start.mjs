// The main job on an embedded default, as `npm start` runs it: makes a real image of three layers out of what is on this
// machine (or takes the archive given as an argument), loads it into a fresh store, mounts a writable layer, changes
// files, commits, exports, verifies every digest, and takes everything away again.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { appendFile, lstat, mkdir, mkdtemp, readFile, rename, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { pack } from 'tar-stream';
import { formatChange, hashFile, openImages, openStore } from '../dist/index.js';
import { formatBytes, formatDuration, formatRate, shortID } from '../dist/cli/format.js';

const archive = process.argv[2];
// /var/tmp rather than /tmp: the latter is often a small memory file system, on which overlayfs may not work either.
const base = (await stat('/var/tmp').catch(() => undefined)) === undefined ? tmpdir() : '/var/tmp';
const scratch = await mkdtemp(join(base, 'layerstore-start-'));
const begun = performance.now();
const steps = [];

async function step(what, bytes, work) {
  const started = performance.now();
  const result = await work();
  const elapsed = performance.now() - started;
  const size = typeof bytes === 'function' ? bytes(result) : bytes;
  const row = [
    what,
    size === undefined ? '' : formatBytes(size),
    formatDuration(elapsed),
    size === undefined ? '' : formatRate(size, elapsed),
  ];
  steps.push(row);
  console.log(`${row[0].padEnd(44)} ${row[1].padStart(9)} ${row[2].padStart(9)} ${row[3].padStart(10)}`);
  return result;
}

const mine =
  process.getuid?.() === 0 ? [] : ['--owner', String(process.getuid?.()), '--group', String(process.getgid?.())];

/** A layer out of directories of this machine, by the tar that is on it. */
function tarOf(name, directory, paths) {
  const file = join(scratch, name);
  const { status, stderr } = spawnSync(
    'tar',
    [
      '--xattrs',
      '--sort=name',
      '--numeric-owner',
      '--format=pax',
      ...mine,
      '-cf',
      file,
      '-C',
      directory,
      '--ignore-failed-read',
      ...paths,
    ],
    { encoding: 'utf8' },
  );
  // 1: a file changed while it was read; the tar is whole all the same
  if (status !== 0 && status !== 1) throw new Error(`tar failed: ${stderr}`);
  return file;
}

/** The third layer: a big binary, a changed file, a deletion (whiteout) and an emptied directory (opaque). */
async function topLayer(name) {
  const file = join(scratch, name);
  const tar = pack();
  const written = pipeline(tar, createWriteStream(file));
  const node = await readFile(process.execPath);
  const add = (header, content) =>
    new Promise((done, failed) => tar.entry(header, content, (error) => (error ? failed(error) : done())));
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, mtime: new Date(1_700_000_000_000) };
  await add({ name: 'opt/', type: 'directory', mode: 0o755, ...owner });
  await add({ name: 'opt/node', mode: 0o755, ...owner }, node);
  await add({ name: 'etc/', type: 'directory', mode: 0o755, ...owner });
  await add({ name: 'etc/motd', mode: 0o644, ...owner }, 'made by layerstore\n');
  await add({ name: 'etc/.wh.hostname', mode: 0o600, ...owner }, '');
  await add({ name: 'app/', type: 'directory', mode: 0o755, ...owner });
  await add({ name: 'app/node_modules/', type: 'directory', mode: 0o755, ...owner });
  await add({ name: 'app/node_modules/.bin/', type: 'directory', mode: 0o755, ...owner });
  await add({ name: 'app/node_modules/.bin/.wh..wh..opq', mode: 0o600, ...owner }, '');
  tar.finalize();
  await written;
  return file;
}

async function sha256(file) {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

/** Packs layers into an archive as `docker save` writes it. */
async function makeArchive() {
  const machine = [
    'etc/hostname',
    'etc/os-release',
    'etc/passwd',
    'etc/group',
    'etc/ssl',
    'etc/alternatives',
    'usr/lib/python3',
    'usr/share/perl',
    'usr/share/zoneinfo',
    'usr/share/doc',
  ];
  const present = [];
  for (const path of machine)
    if ((await stat(join('/', path)).catch(() => undefined)) !== undefined) present.push(path);
  const modules = join(scratch, 'tree/app');
  await mkdir(modules, { recursive: true });
  const layers = [
    tarOf('1.tar', '/', present),
    tarOf('2.tar', resolve(import.meta.dirname, '..'), ['--transform', 's,^,app/,S', 'node_modules']),
    await topLayer('3.tar'),
  ];
  const digests = [];
  for (const layer of layers) digests.push(await sha256(layer));
  const config = JSON.stringify({
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: { Cmd: ['/opt/node'] },
    rootfs: { type: 'layers', diff_ids: digests.map((hex) => `sha256:${hex}`) },
    history: digests.map(() => ({ created_by: 'npm start' })),
  });
  const id = createHash('sha256').update(config).digest('hex');
  const file = join(scratch, 'image.tar');
  const tar = pack();
  const written = pipeline(tar, createWriteStream(file));
  for (const [i, layer] of layers.entries()) {
    const entry = tar.entry({ name: `${digests[i]}.tar`, size: (await stat(layer)).size });
    await pipeline(createReadStream(layer), entry);
    await rm(layer);
  }
  tar.entry({ name: `${id}.json` }, config);
  tar.entry(
    { name: 'manifest.json' },
    JSON.stringify([
      { Config: `${id}.json`, RepoTags: ['this-machine:latest'], Layers: digests.map((hex) => `${hex}.tar`) },
    ]),
  );
  tar.finalize();
  await written;
  return file;
}

async function change(root) {
  await mkdir(join(root, 'srv/site'), { recursive: true });
  await writeFile(join(root, 'srv/site/index.html'), '<h1>hello</h1>\n');
  const candidates = ['etc/os-release', 'etc/passwd', 'etc/group', 'etc/motd'];
  let changed = 0;
  for (const path of candidates) {
    const file = join(root, path);
    // Links inside an image may point outside of the mount; only plain files are touched.
    const there = await lstat(file).catch(() => undefined);
    if (there === undefined || !there.isFile()) continue;
    if (changed === 0) await appendFile(file, '# changed\n');
    else if (changed === 1) await unlink(file);
    else if (changed === 2) await rename(file, join(dirname(file), 'renamed'));
    changed++;
  }
}

async function main() {
  const image = archive ?? (await step('made an image out of this machine', undefined, makeArchive));
  const size = (await stat(image)).size;
  const warnings = [];
  const log = (_fields, text) => warnings.push(text);
  const quiet = () => undefined;
  const store = await openStore({
    root: join(scratch, 'store'),
    logger: { debug: quiet, info: quiet, warn: log, error: log },
  });
  try {
    await mainJob(store, image, size);
  } finally {
    await store.close();
  }
  for (const text of warnings) console.log(`note: ${text}`);
  console.log(`done in ${formatDuration(performance.now() - begun)}`);
}

async function mainJob(store, image, size) {
  console.log(`store: driver ${store.driverName}, engine ${store.engineName}, strict durability\n`);
  const images = await openImages(store);
  const [loaded] = await step('loaded: unpacked, hashed, on disk', size, () => images.load({ path: resolve(image) }));
  if (loaded === undefined) throw new Error(`${image} holds no image`);
  const report = await step('verified every file of every layer', loaded.size, () => store.verify());
  if (!report.ok) throw new Error('verification found damage in a fresh store');

  const rw = await step('created a writable layer', undefined, () => store.createRWLayer('demo', loaded.chainID));
  const root = await step('mounted it', undefined, () => rw.mount());
  await step('changed files in it', undefined, () => change(root));
  const changes = await step('listed the changes', undefined, () => rw.changes());
  await step('unmounted it', undefined, () => rw.unmount());
  console.log(changes.map((each) => `    ${formatChange(each)}`).join('\n'));
  const layer = await step('committed them as a layer', undefined, () => store.commit(rw));

  let bytes = 0;
  for (let each = await store.get(layer.chainID); each !== undefined;) {
    const target = join(scratch, 'export.tar');
    const label = `exported ${shortID(each.chainID)} byte for byte`;
    const { diffID } = await step(
      label,
      (result) => result.bytes,
      () => each.exportTo({ path: target }),
    );
    const again = await hashFile(target);
    if (diffID !== each.diffID || again.diffID !== each.diffID)
      throw new Error(`layer ${each.chainID} came back with other bytes`);
    bytes += again.tarSize;
    await rm(target);
    const parent = each.parent?.chainID;
    await store.release(each);
    each = parent === undefined ? undefined : await store.get(parent);
  }
  const removed = await step('released everything', undefined, async () => [
    ...(await store.releaseRWLayer(rw)),
    ...(await store.release(layer)),
    ...(await images.remove(loaded.names[0] ?? loaded.id)),
  ]);
  const left = store.map().size;
  if (left !== 0) throw new Error(`${left} layers are still there`);
  console.log(`\n${removed.length} layers, ${formatBytes(bytes)} of tar: every digest verified, nothing left`);
}

try {
  await main();
} finally {
  await rm(scratch, { recursive: true, force: true });
}
