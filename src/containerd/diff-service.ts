/**
 * containerd's diff service. Apply unpacks a blob with the store's engine, so that the snapshot becomes a layer of the store
 * when it is committed. What it cannot do exactly is answered with UNIMPLEMENTED: containerd then asks the next differ of its
 * list, which is its own, and that works on the mounts of our snapshots as on any others. So does Diff, always: it writes a
 * blob to containerd's content store, and the request does not say in which namespace.
 */
import { type Digest, parseDigest } from '../digest.js';
import type { LoggerLike } from '../util/logger.js';
import { quote } from '../util/quote.js';
import type { Content } from './content.js';
import { Refusal } from './refusal.js';
import type { Snapshots } from './snapshots.js';
import { unary, type Handlers, type Mount } from './wire.js';

export const DIFF_SERVICE = { file: 'diff.proto', name: 'containerd.services.diff.v1.Diff' };

interface Descriptor {
  media_type: string;
  digest: string;
  size: number;
  annotations: Record<string, string>;
}

interface ApplyRequest {
  diff: Descriptor | null;
  mounts: Mount[];
}

/**
 * Layers of OCI and Docker. The compression is told by the content; another suffix, as of encrypted layers, is not ours.
 * The request's `payloads` are for those who process such blobs: containerd sends them with every layer.
 */
const LAYER =
  /^application\/vnd\.(oci\.image\.layer(\.nondistributable)?\.v1\.tar|docker\.image\.rootfs(\.foreign)?\.diff\.tar)([+.](gzip|zstd))?$/;
const TAR = 'application/vnd.oci.image.layer.v1.tar';

export function diffService(snapshots: Snapshots, content: Content, logger: LoggerLike): Handlers {
  return {
    Apply: unary<ApplyRequest, { applied: Descriptor }>(async ({ diff, mounts }, signal) => {
      const blob = layerOf(diff);
      if (!content.available) throw pass("containerd's root and socket are not known here");
      const key = await snapshotOf(snapshots, mounts);
      const started = performance.now();
      const tar = await content.open({ digest: blob.digest, namespace: namespaceOf(key), signal });
      const applied = await snapshots.apply(key, { tar, blob, signal, onProgress: undefined });
      logger.info(
        { snapshot: key, digest: blob.digest, diffID: applied.diffID, ms: Math.round(performance.now() - started) },
        'a blob is unpacked',
      );
      return { applied: { media_type: TAR, digest: applied.diffID, size: applied.tarSize, annotations: {} } };
    }),
    Diff: unary<object, object>(() => Promise.reject(pass('no blobs are made here'))),
  };
}

function pass(why: string): Refusal {
  return new Refusal('UNIMPLEMENTED', `another differ has to do this: ${why}`);
}

function layerOf(diff: Descriptor | null): { mediaType: string; digest: Digest; size: number } {
  if (diff === null) throw new Refusal('INVALID_ARGUMENT', 'the request names no blob');
  const { media_type: mediaType, digest, size } = diff;
  if (!LAYER.test(mediaType)) throw pass(`${quote(mediaType)} is not the media type of a layer`);
  if (!digest.startsWith('sha256:')) throw pass(`${quote(digest)} is not a SHA-256 digest`);
  return { mediaType, digest: parseDigest(digest), size };
}

/** The name of the active snapshot that these mounts write to. */
async function snapshotOf(snapshots: Snapshots, mounts: readonly Mount[]): Promise<string> {
  const directory = mounts.length === 1 ? writtenDirectory(mounts[0] as Mount) : undefined;
  if (directory === undefined) throw pass('the mounts write to no directory of a snapshot');
  try {
    return await snapshots.writtenBy(directory);
  } catch (error) {
    // Mounts of another snapshotter: whoever configured us as the only differ has more than one.
    if (error instanceof Refusal && error.status === 'NOT_FOUND') throw pass(error.message);
    throw error;
  }
}

function writtenDirectory({ type, source, target, options }: Mount): string | undefined {
  if (target !== '') return undefined;
  if (type === 'bind') return options.includes('ro') ? undefined : source;
  if (type !== 'overlay') return undefined;
  return options.find((option) => option.startsWith('upperdir='))?.slice('upperdir='.length);
}

/** containerd's keys begin with its namespace: `NAMESPACE/NUMBER/NAME`. The request has it nowhere else. */
function namespaceOf(key: string): string {
  const end = key.indexOf('/');
  return end > 0 ? key.slice(0, end) : 'default';
}
