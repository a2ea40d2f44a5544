/**
 * kill -9 of containerd or of our plugin in the middle of an unpack, and restarts in any order: the next import ends well,
 * both sides name the same snapshots, and when the images are gone nothing is left.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { tempDir } from '../../support/temp.js';
import { entries, oci, sampleConfig, tar, type Entry } from '../../unit/image/archives.js';
import { inReverse, type Hooks } from '../support.js';
import { assertAgree, assertNothingLeft } from './agreement.js';
import { listSnapshots } from './clients.js';
import { Pair, SNAPSHOTTER } from './daemons.js';
import { RELEASES } from './releases.js';

const LAYERS = 3;
const FILES = 2_000;

/** An OCI archive of an image that takes a while to unpack. */
async function bigImage(t: Hooks): Promise<string> {
  const layers = await Promise.all(
    Array.from({ length: LAYERS }, (_, layer) =>
      tar(Array.from({ length: FILES }, (__, file): Entry => [`layer${layer}/file${file}`, randomBytes(4_000)])),
    ),
  );
  const path = join(tempDir(t, 'big-image'), 'image.tar');
  const config = sampleConfig(layers);
  const { files } = oci(layers, { gzip: true, name: 'docker.io/library/big:1', config });
  writeFileSync(path, await tar(entries(files)));
  return path;
}

/** Resolves when a layer after the first is being unpacked. */
async function inTheMiddle(pair: Pair): Promise<void> {
  for (let waits = 0; waits < 6_000; waits++) {
    const found = await listSnapshots(pair.socket);
    if (found.some(({ kind }) => kind === 'COMMITTED') && found.some(({ kind }) => kind === 'ACTIVE')) return;
    await sleep(5);
  }
  throw new Error('no layer was ever unpacked');
}

describe('a crash in the middle of an unpack', () => {
  for (const release of RELEASES) {
    for (const victim of ['containerd', 'plugin'] as const) {
      it(`of ${victim}, beside the other: ${release}`, async (context) => {
        const t = inReverse(context);
        const archive = await bigImage(t);
        const pair = await Pair.start(t, release);
        const words = ['images', 'import', '--snapshotter', SNAPSHOTTER, archive];
        const first = pair.ctr(...words).then(
          () => 'imported',
          () => 'failed',
        );
        await inTheMiddle(pair);
        if (victim === 'containerd') {
          await pair.containerd.kill();
          await first;
          // The plugin is restarted, too, and comes last.
          await pair.plugin.stop();
          await pair.startContainerd();
          await pair.startPlugin();
        } else {
          await pair.plugin.kill();
          await first;
          await pair.startPlugin();
        }
        await pair.reconnected();
        await assertAgree(pair, { orphans: true });
        await pair.ctr(...words);
        await assertAgree(pair, { orphans: true });
        assert.equal((await pair.snapshots()).filter(({ kind }) => kind === 'Committed').length, LAYERS);
        await assertNothingLeft(pair);
      });
    }
  }

  it('a snapshot that is being written outlives the plugin, and is committed when it is back', async (context) => {
    const t = inReverse(context);
    const pair = await Pair.start(t, 'installed');
    await pair.ctr('images', 'import', '--snapshotter', SNAPSHOTTER, await bigImage(t));
    await pair.ctr('snapshots', '--snapshotter', SNAPSHOTTER, 'prepare', 'work');
    await pair.plugin.kill();
    await assert.rejects(pair.ctr('snapshots', '--snapshotter', SNAPSHOTTER, 'prepare', 'other'));
    await pair.startPlugin();
    await pair.reconnected();
    await assertAgree(pair);
    await pair.ctr('snapshots', '--snapshotter', SNAPSHOTTER, 'commit', 'done', 'work');
    await assertAgree(pair);
    await pair.ctr('snapshots', '--snapshotter', SNAPSHOTTER, 'rm', 'done');
    await assertNothingLeft(pair);
  });
});
