/** What we write, others take; what others write, we take: the same layers each time. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openImages, type Image, type Images, type SaveOptions } from '../../src/image/index.js';
import { openStore } from '../../src/store/open.js';
import type { Store } from '../../src/store/types.js';
import { tempDir } from '../support/temp.js';
import { command, containerd, Docker, inReverse, peerImage, podman, requirePeers, type Hooks } from './support.js';

const NAME = 'peer:1';

interface Setup {
  store: Store;
  images: Images;
  image: Image;
  scratch: string;
}

async function setup(t: Hooks): Promise<Setup> {
  const scratch = tempDir(t, 'peers');
  const store = await openStore({ root: join(scratch, 'root'), durability: 'relaxed' });
  t.after(() => store.close());
  const images = await openImages(store);
  const [image] = await images.load({ path: await peerImage(t) });
  assert.ok(image !== undefined);
  await images.tag(image.id, NAME);
  return { store, images, image, scratch };
}

/** A second store that loads what a peer wrote gets the same image. */
async function assertLoads(t: Hooks, path: string, expected: Image, names: readonly string[]): Promise<void> {
  const store = await openStore({ root: join(tempDir(t, 'peers-again'), 'root'), durability: 'relaxed' });
  t.after(() => store.close());
  const [again, ...more] = await (await openImages(store)).load({ path });
  assert.equal(more.length, 0);
  assert.deepEqual(again?.diffIDs, expected.diffIDs);
  assert.deepEqual(again?.names, names);
}

const DOCKER_FORMS: readonly SaveOptions[] = [{}, { compression: 'gzip' }];
const OCI_FORMS: readonly SaveOptions[] = [{ format: 'oci' }, { format: 'oci', compression: 'gzip' }];

describe('docker', () => {
  for (const options of DOCKER_FORMS) {
    it(`loads what we save, saves it unchanged, and we load that: ${JSON.stringify(options)}`, async (context) => {
      const t = inReverse(context);
      const { images, image, scratch } = await setup(t);
      const ours = join(scratch, 'ours.tar');
      await images.save(NAME, { path: ours }, options);
      const docker = await Docker.start(t, join(scratch, 'docker'), tempDir(t, 'd'));
      assert.match(await docker.run('load', '-i', ours), /Loaded image: peer:1/);
      assert.equal(await docker.run('image', 'inspect', '--format', '{{.Id}}', NAME), image.id);
      assert.equal(
        await docker.run('image', 'inspect', '--format', '{{join .RootFS.Layers " "}}', NAME),
        image.diffIDs.join(' '),
      );
      const theirs = join(scratch, 'theirs.tar');
      await docker.run('save', '-o', theirs, NAME);
      await docker.stop();
      await assertLoads(t, theirs, image, [NAME]);
    });
  }
});

describe('podman', () => {
  for (const options of [...DOCKER_FORMS, ...OCI_FORMS]) {
    it(`loads what we save: ${JSON.stringify(options)}`, async (context) => {
      const t = inReverse(context);
      const pod = podman(t);
      const { images, image, scratch } = await setup(t);
      const ours = join(scratch, 'ours.tar');
      await images.save(NAME, { path: ours }, options);
      await pod('load', '-i', ours);
      assert.equal(
        `sha256:${await pod('image', 'inspect', '--format', '{{.Id}}', `docker.io/library/${NAME}`)}`,
        image.id,
      );
    });
  }

  for (const format of ['docker-archive', 'oci-archive', 'oci-dir']) {
    it(`saves what we load: ${format}`, async (context) => {
      const t = inReverse(context);
      const pod = podman(t);
      const { images, image, scratch } = await setup(t);
      const ours = join(scratch, 'ours.tar');
      const theirs = join(scratch, 'theirs');
      await images.save(NAME, { path: ours });
      await pod('load', '-i', ours);
      await pod('save', '--format', format, '-o', theirs, `docker.io/library/${NAME}`);
      await assertLoads(t, theirs, image, [NAME]);
    });
  }
});

describe('skopeo', () => {
  for (const options of [...DOCKER_FORMS, ...OCI_FORMS]) {
    it(`copies what we save: ${JSON.stringify(options)}`, async (context) => {
      const t = inReverse(context);
      requirePeers('skopeo');
      const { images, image, scratch } = await setup(t);
      const ours = join(scratch, 'ours.tar');
      await images.save(NAME, { path: ours }, options);
      const transport = options.format === 'oci' ? `oci-archive:${ours}` : `docker-archive:${ours}`;
      await command('skopeo', ['copy', '--insecure-policy', transport, `dir:${join(scratch, 'copied')}`]);
      const config = JSON.parse(await command('skopeo', ['inspect', '--config', '--raw', transport])) as {
        rootfs: { diff_ids: string[] };
      };
      assert.deepEqual(config.rootfs.diff_ids, image.diffIDs);
    });
  }

  for (const [target, extra] of [
    ['docker-archive', []],
    ['oci-archive', []],
    ['oci', []],
    ['oci', ['--dest-compress-format', 'zstd']],
  ] as const) {
    it(`writes what we load: ${target} ${extra.join(' ')}`, async (context) => {
      const t = inReverse(context);
      requirePeers('skopeo');
      const { images, image, scratch } = await setup(t);
      const ours = join(scratch, 'ours');
      await images.save(NAME, { path: `${ours}/` }, { format: 'oci' });
      const theirs = join(scratch, 'theirs');
      await command('skopeo', [
        'copy',
        '--insecure-policy',
        ...(extra.length > 0 ? ['--dest-compress'] : []),
        ...extra,
        `oci:${ours}:1`,
        `${target}:${theirs}:${NAME}`,
      ]);
      await assertLoads(t, theirs, image, [NAME]);
    });
  }
});

describe('umoci', () => {
  for (const options of OCI_FORMS) {
    it(`unpacks a layout that we save: ${JSON.stringify(options)}`, async (context) => {
      const t = inReverse(context);
      requirePeers('umoci');
      const { images, image, scratch } = await setup(t);
      const ours = join(scratch, 'ours');
      await images.save(NAME, { path: `${ours}/` }, options);
      assert.equal((await command('umoci', ['ls', '--layout', ours])).trim(), '1');
      await command('umoci', ['unpack', '--image', `${ours}:1`, join(scratch, 'bundle')]);
      const stat = JSON.parse(await command('umoci', ['stat', '--image', `${ours}:1`, '--json'])) as {
        history: { diff_id?: string }[];
      };
      assert.deepEqual(
        stat.history.map(({ diff_id: id }) => id),
        image.diffIDs,
      );
      assert.ok(readFileSync(join(scratch, 'bundle/umoci.json')).length > 0);
    });
  }
});

describe('containerd', () => {
  for (const options of [...DOCKER_FORMS, ...OCI_FORMS]) {
    it(`imports what we save, exports it, and we load that: ${JSON.stringify(options)}`, async (context) => {
      const t = inReverse(context);
      const ctr = await containerd(t);
      const { images, image, scratch } = await setup(t);
      const ours = join(scratch, 'ours.tar');
      const theirs = join(scratch, 'theirs.tar');
      await images.save(NAME, { path: ours }, options);
      await ctr('images', 'import', ours);
      await ctr('images', 'export', theirs, `docker.io/library/${NAME}`);
      await assertLoads(t, theirs, image, [NAME]);
    });
  }
});
