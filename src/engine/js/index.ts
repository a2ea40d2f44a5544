/** The pure-JavaScript engine. What it cannot do is listed in docs/js-engine.md. */
import type { Engine } from '../engine.js';
import { assemble, assembleTo, recordedSize } from './assemble.js';
import { runBatch } from './batch.js';
import { jsFeatures } from './features.js';
import { hashFile } from './hash-file.js';
import { ingest } from './ingest.js';
import { mountOverlay, unmount } from './mount.js';
import { readMounts } from './mount-table.js';
import { removeTree, usage } from './remove.js';
import { lockFile, syncFileSystems } from './sync.js';
import { changes, diffSize } from './changes.js';
import { treeTar } from './tree-tar.js';
import { commitTree } from './commit-tree.js';
import { copyTree } from './copy.js';
import { verifyTree } from './verify.js';

/** Makes an engine that needs no addon. It holds no state: several are as good as one. */
export function createJsEngine(): Engine {
  return {
    name: 'js',
    features: jsFeatures,
    hashFile,
    ingest,
    assemble,
    assembleTo,
    recordedSize,
    verifyTree,
    changes,
    diffSize,
    treeTar,
    commitTree,
    usage,
    copyTree,
    removeTree,
    mountOverlay,
    unmount,
    mounts: readMounts,
    batch: runBatch,
    syncFs: syncFileSystems,
    lock: lockFile,
  };
}
