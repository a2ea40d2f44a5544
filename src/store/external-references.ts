/**
 * References of other programs: Docker's images and its builder share the root, and `image/` reads their records. If such
 * records exist and cannot all be read, nothing may be deleted.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { ChainID } from '../digest.js';
import type { StoreContext } from './context.js';

export interface ExternalReferences {
  chains?: ReadonlySet<ChainID>;
  /** Why the list may be incomplete. */
  incomplete?: string;
}

export async function externalReferences(ctx: StoreContext): Promise<ExternalReferences> {
  const incomplete = ctx.references.incomplete;
  if (incomplete !== undefined) return { incomplete };
  if (ctx.referenceSources.length === 0) {
    const docker = await dockerState(ctx);
    if (docker === undefined) return {};
    return { incomplete: `"${docker}" holds Docker's records and nothing reads them: call openImages(store) first` };
  }
  const chains = new Set<ChainID>();
  for (const source of ctx.referenceSources) {
    try {
      for (const chain of await source()) chains.add(chain);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      return { incomplete: `what other records under the root refer to cannot be read completely: ${why}` };
    }
  }
  return { chains };
}

/** Docker's directory of records under this root, if it exists. */
async function dockerState(ctx: StoreContext): Promise<string | undefined> {
  for (const path of [join(ctx.root, 'image', ctx.driver.name, 'imagedb'), join(ctx.root, 'buildkit')]) {
    try {
      await stat(path);
      return path;
    } catch (error) {
      // Missing is the usual case; after any other error the list may be incomplete.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return path;
    }
  }
  return undefined;
}
