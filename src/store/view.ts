/** A layer's whole tree, read-only, for as long as somebody looks. The driver counts the mounts. */
import { errorFields } from '../util/logger.js';
import type { StoreContext } from './context.js';
import type { LayerNode } from './layer-map.js';
import type { MountedPath } from './types.js';

/** `closed` is called once, when the view was disposed of. */
export async function openView(ctx: StoreContext, node: LayerNode, closed: () => void): Promise<MountedPath> {
  const leave = node.readers.enter();
  let path: string;
  try {
    path = await ctx.driver.view(node.cacheID);
  } catch (error) {
    leave();
    throw error;
  }
  let disposal: Promise<void> | undefined;
  const dispose = (): Promise<void> => {
    disposal ??= ctx.driver.put(node.cacheID).then(
      () => {
        ctx.open.delete(atClose);
        leave();
        closed();
      },
      (error: unknown) => {
        // Busy: still open, and disposing again tries again.
        disposal = undefined;
        throw error;
      },
    );
    return disposal;
  };
  const atClose = async (): Promise<void> => {
    try {
      await dispose();
    } catch (error) {
      ctx.logger.warn({ chainID: node.chainID, path, ...errorFields(error) }, 'a view stays mounted after close');
    }
  };
  ctx.open.add(atClose);
  return { path, [Symbol.asyncDispose]: dispose };
}
