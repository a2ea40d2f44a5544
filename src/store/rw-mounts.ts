/**
 * Mounting and unmounting, counted over all handles of an RW layer: the first makes the kernel's mount, the last takes
 * it away. All of it runs under the name's lock, so that mounts at once make one.
 */
import { LayerStoreError } from '../errors.js';
import { errorFields } from '../util/logger.js';
import { invalid } from './arguments.js';
import type { StoreContext } from './context.js';
import type { RWNode } from './rw-map.js';

export function mountRW(ctx: StoreContext, node: RWNode, owner: object, label: string | undefined): Promise<string> {
  return ctx.locks.run(`rw:${node.name}`, async () => {
    // The handle may have been released while this waited for its turn.
    if (!node.owners.has(owner)) throw releasedRW(node.name);
    const wanted = label ?? node.defaultLabel;
    let path = node.path;
    if (node.mountCount > 0 && path !== undefined) {
      if (label !== undefined && node.label !== null && node.label !== label) {
        throw invalid(
          `RW layer "${node.name}" is mounted ${node.label === undefined ? 'without a label' : `with the label "${node.label}"`}: ` +
            `unmount it before it is mounted with "${label}"`,
        );
      }
      if (await vanished(ctx, node)) path = undefined;
    }
    if (path === undefined) {
      path = await ctx.driver.get(node.mountID, wanted);
      node.label = wanted;
      node.path = path;
    }
    node.mountCount += 1;
    node.owners.set(owner, (node.owners.get(owner) ?? 0) + 1);
    return path;
  });
}

export function unmountRW(ctx: StoreContext, node: RWNode, owner: object): Promise<void> {
  return ctx.locks.run(`rw:${node.name}`, async () => {
    if (!node.owners.has(owner)) throw releasedRW(node.name);
    if (node.mountCount === 0) {
      throw new LayerStoreError(
        'ERR_NOT_MOUNTED',
        `RW layer "${node.name}" is not mounted: each mount() takes one unmount()`,
      );
    }
    if (node.mountCount === 1) {
      // A failure, such as somebody's working directory in there, keeps the count.
      await putLast(ctx, node);
      node.path = undefined;
      node.label = undefined;
    }
    node.mountCount -= 1;
    disown(node, owner);
  });
}

async function putLast(ctx: StoreContext, node: RWNode): Promise<void> {
  try {
    await ctx.driver.put(node.mountID);
  } catch (error) {
    if (!(await isMissing(ctx, node))) throw error;
    ctx.logger.warn(
      { name: node.name, path: node.path, ...errorFields(error) },
      'a mount had vanished before its unmount',
    );
  }
}

/** Whose mount an unmount ends: the caller's own, else an adopted one, else any. */
function disown(node: RWNode, owner: object): void {
  const own = node.owners.get(owner) ?? 0;
  if (own > 0) {
    node.owners.set(owner, own - 1);
  } else if (node.unowned > 0) {
    node.unowned -= 1;
  } else {
    for (const [other, count] of node.owners) {
      if (count === 0) continue;
      node.owners.set(other, count - 1);
      break;
    }
  }
}

/** Whether a mount that is counted is gone from the mount table; what the driver counted for it is taken back then. */
async function vanished(ctx: StoreContext, node: RWNode): Promise<boolean> {
  if (!(await isMissing(ctx, node))) return false;
  ctx.logger.warn({ name: node.name, path: node.path }, 'a mount has vanished behind the store and is made again');
  try {
    await ctx.driver.put(node.mountID);
  } catch (error) {
    // There is nothing to unmount any more, which is what this is about.
    ctx.logger.debug({ name: node.name, ...errorFields(error) }, 'the driver could not put a vanished mount');
  }
  return true;
}

/** Whether the kernel has no mount where the driver made one. Without a parent there is none. */
async function isMissing(ctx: StoreContext, node: RWNode): Promise<boolean> {
  return node.belowID !== undefined && ctx.driver.mountVanished(node.mountID);
}

/** Whether the mount table has the layer although nobody counts it. */
export async function isInMountTable(ctx: StoreContext, node: RWNode): Promise<boolean> {
  const live = await ctx.driver.liveMounts();
  return live.some((mount) => mount.id === node.mountID || mount.id === node.initID);
}

export function releasedRW(name: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_NOT_RETAINED',
    `this handle on RW layer "${name}" was released before: getRWLayer() gives a new one while the layer is there`,
  );
}
