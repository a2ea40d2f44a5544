/** Disk use, from sizes recorded at registration; only writable layers, and what is being removed, are looked at. */
import { statfs } from 'node:fs/promises';
import { systemError } from '../errors.js';
import { mapConcurrent } from '../util/concurrent.js';
import type { StoreContext } from './context.js';
import type { RWNode } from './rw-map.js';
import type { StoreUsage } from './types.js';

const AT_ONCE = 4;

export async function usage(ctx: StoreContext): Promise<StoreUsage> {
  let layerBytes = 0;
  for (const node of ctx.layers) layerBytes += node.diffSize;
  const rwNodes = [...ctx.rwLayers];
  const each = await mapConcurrent(rwNodes, AT_ONCE, (node) => usageOf(ctx, node));
  const pending = await ctx.driver.leftovers();
  const disk = await statfs(ctx.root).catch((error: unknown) => {
    throw systemError(error, 'read the free space of the root');
  });
  return {
    layers: { count: ctx.layers.count, bytes: layerBytes },
    rwLayers: {
      count: rwNodes.length,
      bytes: each.reduce((sum, { bytes }) => sum + bytes, 0),
      inodes: each.reduce((sum, { inodes }) => sum + inodes, 0),
    },
    pendingRemoval: {
      count: pending.length,
      bytes: pending.reduce((sum, { bytes }) => sum + bytes, 0),
      inodes: pending.reduce((sum, { inodes }) => sum + inodes, 0),
    },
    fileSystem: {
      bytes: disk.blocks * disk.bsize,
      bytesFree: disk.bavail * disk.bsize,
      inodes: disk.files,
      inodesFree: disk.ffree,
    },
  };
}

async function usageOf(ctx: StoreContext, node: RWNode): Promise<{ bytes: number; inodes: number }> {
  const leave = node.readers.enter();
  try {
    if (node.gone) return { bytes: 0, inodes: 0 };
    const { size, inodes } = await ctx.driver.usage(node.mountID, node.belowID);
    return { bytes: size, inodes };
  } finally {
    leave();
  }
}
