/** An image that we made is one image to everybody: the same id, and a configuration that runs. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openImages, type Image } from '../../src/image/index.js';
import { openStore } from '../../src/store/open.js';
import { tempDir } from '../support/temp.js';
import { command, containerd, Docker, inReverse, peerImage, podman, requirePeers, type Hooks } from './support.js';

const NAME = 'made:1';
const CONFIG = {
  Cmd: ['/etc/made-by-cmd'],
  Entrypoint: ['/bin/hello'],
  Env: ['PATH=/bin', 'A=b=c'],
  ExposedPorts: { '80/tcp': {} },
  Labels: { 'with.dot': 'and "quotes" <&>' },
  StopSignal: 'SIGINT',
  User: '0:0',
  Volumes: { '/data': {} },
  WorkingDir: '/etc',
};

/** The image `made:1` in a store at `root`: a layer on the peers' image, and another configuration. Saved at `path`. */
async function make(t: Hooks, root: string, path: string): Promise<Image> {
  const store = await openStore({ root });
  try {
    const images = await openImages(store);
    const [base] = await images.load({ path: await peerImage(t) });
    const box = await store.createRWLayer('box', base?.chainID);
    writeFileSync(join(await box.mount(), 'etc/made'), 'made\n');
    await box.unmount();
    const top = await store.commit(box);
    await store.releaseRWLayer(box);
    const image = await images.create({
      base: base?.id ?? '',
      chainID: top.chainID,
      config: CONFIG,
      names: [NAME],
      created: new Date('2024-02-03T04:05:06Z'),
      comment: 'made here',
    });
    await store.release(top);
    await images.save(NAME, { path });
    return image;
  } finally {
    await store.close();
  }
}

/** The members of a configuration that we set, as a peer tells them. */
function told(config: unknown): unknown {
  return Object.fromEntries(Object.keys(CONFIG).map((key) => [key, (config as Record<string, unknown>)[key]]));
}

describe('an image that we made', () => {
  it("is dockerd's on the same root, runs there, and comes back as it was", async (context) => {
    const t = inReverse(context);
    const scratch = tempDir(t, 'd');
    const root = join(scratch, 'root');
    const image = await make(t, root, join(scratch, 'made.tar'));
    const docker = await Docker.start(t, root, scratch);
    const [inspected] = JSON.parse(await docker.run('image', 'inspect', NAME)) as { Id: string; Config: unknown }[];
    assert.equal(inspected?.Id, image.id);
    assert.deepEqual(told(inspected.Config), CONFIG);
    assert.equal(await docker.run('run', '--rm', '--network', 'none', NAME), 'hello');
    assert.match(await docker.run('history', '--no-trunc', NAME), /layerstore.*made here/);
    const saved = join(scratch, 'saved.tar');
    await docker.run('save', '-o', saved, NAME);
    await docker.run('rmi', NAME);
    await docker.run('load', '-i', join(scratch, 'made.tar'));
    assert.equal(await docker.run('image', 'inspect', '--format', '{{.Id}}', NAME), image.id);
    await docker.stop();

    const store = await openStore({ root: join(tempDir(t, 'again'), 'root'), durability: 'relaxed' });
    t.after(() => store.close());
    assert.deepEqual(await (await openImages(store)).load({ path: saved }), [image]);
  });

  it("is podman's", async (context) => {
    const t = inReverse(context);
    const pod = podman(t);
    const scratch = tempDir(t, 'peers');
    const image = await make(t, join(scratch, 'root'), join(scratch, 'made.tar'));
    await pod('load', '-i', join(scratch, 'made.tar'));
    const [inspected] = JSON.parse(await pod('image', 'inspect', `docker.io/library/${NAME}`)) as {
      Id: string;
      Config: unknown;
      History: { comment?: string }[];
    }[];
    assert.equal(`sha256:${inspected?.Id ?? ''}`, image.id);
    assert.deepEqual(told(inspected?.Config), CONFIG);
    assert.equal(inspected?.History.at(-1)?.comment, 'made here');
  });

  it("is skopeo's", async (context) => {
    const t = inReverse(context);
    requirePeers('skopeo');
    const scratch = tempDir(t, 'peers');
    const image = await make(t, join(scratch, 'root'), join(scratch, 'made.tar'));
    const transport = `docker-archive:${join(scratch, 'made.tar')}`;
    assert.equal(
      await command('skopeo', ['inspect', '--config', '--raw', transport]),
      Buffer.from(image.rawConfig).toString(),
    );
    await command('skopeo', ['copy', '--insecure-policy', transport, `dir:${join(scratch, 'copied')}`]);
  });

  it("is containerd's", async (context) => {
    const t = inReverse(context);
    const ctr = await containerd(t);
    const scratch = tempDir(t, 'peers');
    const image = await make(t, join(scratch, 'root'), join(scratch, 'made.tar'));
    await ctr('images', 'import', join(scratch, 'made.tar'));
    assert.match(await ctr('images', 'ls', '-q'), /docker\.io\/library\/made:1/);
    assert.equal(`${await ctr('content', 'get', image.id)}`, Buffer.from(image.rawConfig).toString());
  });
});
