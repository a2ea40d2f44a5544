/** The property that the differential fuzz holds: any archive is taken or refused alike (four-ways.ts). */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { FourWays, type Archive } from './four-ways.js';
import { hostileArchives } from './hostile-tars.js';
import { makeTempDir, removeTempDir } from './temp.js';

export async function differentialProperty(): Promise<fc.IAsyncProperty<[Archive]>> {
  const fourWays = await FourWays.open();
  return fc.asyncProperty(hostileArchives, async (archive) => {
    const directory = makeTempDir('differential');
    try {
      const { differences } = await fourWays.check(archive, directory);
      assert.equal(differences.get('content'), undefined);
    } finally {
      removeTempDir(directory);
    }
  });
}
