/**
 * The native engine: {@link Engine} over the C++ addon. It holds no state but the addon itself; every call works on
 * threads of the addon's own, and leaves libuv's free for the program.
 */
import type { Readable } from 'node:stream';
import { getSystemErrorName } from 'node:util';
import type { DiffID, Digest } from '../../digest.js';
import { invalidArgument } from '../../errors.js';
import type {
  Assembled,
  AssembleRequest,
  AssembleToRequest,
  BatchOp,
  Change,
  DeferredTeardown,
  DiffRequest,
  Engine,
  EngineFeatures,
  FileLock,
  HashFileResult,
  IngestRequest,
  IngestResult,
  MountEntry,
  MountTier,
  OverlayMount,
  CommitTreeRequest,
  SmallFilesRow,
  TarSource,
  TreeProblem,
  TreeTarRequest,
  TreeUsage,
  VerifyTreeRequest,
} from '../engine.js';
import { DEFAULT_LIMITS } from '../limits.js';
import { formatValue } from '../../util/quote.js';
import type { Binding, NativeDiffRequest, NativeTarRequest } from './binding.js';
import { ingest, toResult } from './ingest.js';
import { loadBinding } from './load.js';
import { withRecordFile } from './record-file.js';
import { plainNative, runNative } from './run.js';
import { openTarStream } from './tar-stream.js';

/** Forces a way of mounting, for tests and for kernels that promise more than they hold: `fd`, `lowerdir+` or `classic`. */
export const MOUNT_TIER_VARIABLE = 'LAYERSTORE_MOUNT_TIER';

/** Opens the native engine; ERR_NOT_SUPPORTED that says why where the addon does not load. */
export function loadNativeEngine(): Engine {
  return new NativeEngine(loadBinding(), forcedTier());
}

function forcedTier(): MountTier | 'auto' {
  const value = process.env[MOUNT_TIER_VARIABLE];
  if (value === undefined || value === '') return 'auto';
  if (value === 'fd' || value === 'lowerdir+' || value === 'classic' || value === 'auto') return value;
  throw invalidArgument(
    `${MOUNT_TIER_VARIABLE} is ${formatValue(value)}: give "fd", "lowerdir+" or "classic", or leave it unset`,
  );
}

/** A tar's spelling of a name (`./etc/`) as the path inside the layer (`/etc`); a record's own path stays. */
function insideLayer(name: string): string {
  if (name.startsWith('/')) return name;
  return `/${name.replace(/^(\.\/+)+/, '').replace(/\/+$/, '')}`;
}

class NativeEngine implements Engine {
  readonly name = 'native';
  readonly followsRedirects = true;
  readonly #binding: Binding;
  readonly #tier: MountTier | 'auto';

  constructor(binding: Binding, tier: MountTier | 'auto') {
    this.#binding = binding;
    this.#tier = tier;
  }

  features(): EngineFeatures {
    const { kernel = 'unknown', ...features } = this.#binding.features();
    return { kernel, ...features, ...(this.#tier === 'auto' ? {} : { mount: this.#tier }) };
  }

  async hashFile(path: string, options: { signal?: AbortSignal } = {}): Promise<HashFileResult> {
    const { signal } = options;
    const result = await runNative(this.#binding, { action: 'hash', signal }, (token) =>
      this.#binding.hashFile(path, DEFAULT_LIMITS.maxWindow, token),
    );
    return { ...result, digest: result.digest as Digest, diffID: result.diffID as DiffID };
  }

  ingest(source: TarSource, request: IngestRequest): Promise<IngestResult> {
    return ingest(this.#binding, source, request);
  }

  async assemble(request: AssembleRequest): Promise<Readable> {
    const local = localRequest(request);
    if (local === undefined) return (await import('../js/assemble.js')).assemble(request);
    return openTarStream(this.#binding, local, { action: 'export the layer', signal: request.signal });
  }

  async assembleTo(request: AssembleToRequest, fd: number): Promise<Assembled> {
    const local = localRequest(request);
    if (local === undefined) return (await import('../js/assemble.js')).assembleTo(request, fd);
    const { compression, signal, onProgress } = request;
    const { bytes, diffID, blobSize, blobDigest } = await runNative(
      this.#binding,
      { action: 'export the layer', signal, onProgress },
      (token) => this.#binding.exportTar(local, compression ?? 'none', fd, token),
    );
    const assembled = { bytes, diffID: diffID as DiffID };
    return compression === undefined
      ? assembled
      : { ...assembled, blob: { digest: blobDigest as Digest, size: blobSize } };
  }

  async recordedSize(tarSplit: AssembleRequest['tarSplit'], options: { signal?: AbortSignal } = {}): Promise<number> {
    if (!('path' in tarSplit) || typeof tarSplit.path !== 'string') {
      return (await import('../js/assemble.js')).recordedSize(tarSplit, options);
    }
    const { path } = tarSplit;
    return runNative(this.#binding, { action: 'read the record of the layer', signal: options.signal }, (token) =>
      this.#binding.recordedSize(path, token),
    );
  }

  async verifyTree(request: VerifyTreeRequest): Promise<TreeProblem[]> {
    const { tarSplit, tree, whiteouts, privilege = 'full', diffID, bytesPerSecond = 0, signal } = request;
    const { directory } = tree;
    if (!('path' in tarSplit) || directory === undefined) return (await import('../js/verify.js')).verifyTree(request);
    const problems = await runNative(this.#binding, { action: 'verify the layer', signal }, (token) =>
      this.#binding.verifyTree(
        { tarSplit: tarSplit.path, directory, whiteouts, privilege, diffID, bytesPerSecond },
        token,
      ),
    );
    return problems.map((problem) => ({ ...problem, path: insideLayer(problem.path) }));
  }

  async changes(request: DiffRequest): Promise<Change[]> {
    const { signal } = request;
    return runNative(this.#binding, { action: 'list the changes', signal }, (token) =>
      this.#binding.changes(nativeDiff(request), token),
    );
  }

  async diffSize(request: DiffRequest): Promise<number> {
    const { signal } = request;
    return runNative(this.#binding, { action: 'measure the changes', signal }, (token) =>
      this.#binding.diffSize(nativeDiff(request), token),
    );
  }

  async treeTar(request: TreeTarRequest): Promise<Readable> {
    const { signal } = request;
    return openTarStream(this.#binding, { kind: 'tree', ...nativeDiff(request) }, { action: 'write the tar', signal });
  }

  async commitTree(request: CommitTreeRequest): Promise<IngestResult> {
    const { directory, consume, removedWhiteoutsTar, upper, signal, onProgress } = request;
    // Where it is taken over, the first directory of `upper` lies under its new name.
    const diff = consume
      ? { ...request, upper: { ...upper, directories: [directory, ...upper.directories.slice(1)] } }
      : request;
    signal?.throwIfAborted();
    if (!consume) await this.batch([{ op: 'mkdir', path: directory, mode: 0o755 }]);
    try {
      const native = await withRecordFile(request.tarSplit, (tarSplit) =>
        runNative(this.#binding, { action: 'commit the layer', signal, onProgress }, (token) =>
          this.#binding.commitTree(
            { ...nativeDiff(diff), directory, consume, removedWhiteoutsTar, tarSplit: tarSplit ?? '' },
            token,
          ),
        ),
      );
      return toResult(native);
    } catch (error) {
      if (!consume) await this.removeTree(directory);
      throw error;
    }
  }

  async usage(directory: string, options: { signal?: AbortSignal } = {}): Promise<TreeUsage> {
    const { signal } = options;
    return runNative(this.#binding, { action: 'measure', signal }, (token) => this.#binding.usage(directory, token));
  }

  async copyTree(source: string, target: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    await runNative(this.#binding, { action: 'copy the tree', signal }, (token) =>
      this.#binding.copyTree(source, target, token),
    );
  }

  async removeTree(path: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    await runNative(this.#binding, { action: 'remove', signal }, (token) => this.#binding.removeTree(path, token));
  }

  async mountOverlay(mount: OverlayMount): Promise<MountTier> {
    const { upper, work, lowers, target, options } = mount;
    return plainNative('mount the layers', () =>
      this.#binding.mountOverlay({ upper, work, lowers, target, options, tier: this.#tier }),
    );
  }

  async unmount(target: string, options: { detach?: boolean } = {}): Promise<void> {
    await plainNative('unmount', () => this.#binding.unmount(target, options.detach === true));
  }

  async mountOnNewTarget(mount: OverlayMount, mode: number): Promise<{ tier: MountTier; device: number }> {
    const { upper, work, lowers, target, options } = mount;
    return plainNative('mount the layers', () =>
      this.#binding.mountOnNewTarget({ upper, work, lowers, target, options, tier: this.#tier }, mode),
    );
  }

  async unmountAndRemove(
    target: string,
    device: number,
    teardown?: DeferredTeardown,
  ): Promise<'removed' | 'target-left' | 'foreign'> {
    return plainNative('unmount', () => this.#binding.unmountAndRemove(target, device, teardown));
  }

  deferredTeardown(): DeferredTeardown {
    return new this.#binding.DeferredTeardown();
  }

  async mounts(directory: string): Promise<MountEntry[]> {
    return plainNative('read the mount table for', () => this.#binding.mounts(directory));
  }

  async batch(ops: readonly BatchOp[]): Promise<void> {
    await plainNative('update the files of the store', () => this.#binding.batch(ops));
  }

  async readSmallFiles(directory: string, names: readonly string[], maxBytes: number): Promise<SmallFilesRow[]> {
    const table = await plainNative('read the files in', () =>
      this.#binding.readSmallFiles(directory, names, maxBytes),
    );
    const rows: SmallFilesRow[] = [];
    for (let at = 0; at < table.length; at += names.length + 1) {
      const files: SmallFilesRow['files'] = [];
      for (let i = 1; i <= names.length; i++) {
        const file = table[at + i];
        files.push(typeof file === 'number' ? { failed: getSystemErrorName(-file) } : file);
      }
      rows.push({ directory: table[at] as string, files });
    }
    return rows;
  }

  async names(directory: string, only: 'directories' | 'all'): Promise<string[]> {
    const names = await plainNative('list the directory', () => this.#binding.names(directory, only === 'directories'));
    return names === '' ? [] : names.slice(0, -1).split('/');
  }

  async syncFs(paths: readonly string[]): Promise<void> {
    await plainNative('sync the file system of', () => this.#binding.syncFs(paths));
  }

  async lock(path: string, mode: 'exclusive' | 'shared'): Promise<FileLock | undefined> {
    const lock = await plainNative('lock', () => this.#binding.lock(path, mode === 'exclusive'));
    return lock === undefined ? undefined : { release: async () => lock.release() };
  }
}

/** The addon's form of a request whose record is a file and whose tree is a directory; `undefined` for any other. */
function localRequest(request: AssembleRequest): (NativeTarRequest & { kind: 'assemble' }) | undefined {
  const { tarSplit, tree, diffID } = request;
  if (!('path' in tarSplit) || typeof tarSplit.path !== 'string' || tree.directory === undefined) return undefined;
  return { kind: 'assemble', tarSplit: tarSplit.path, directory: tree.directory, diffID };
}

function nativeDiff(request: TreeTarRequest): NativeDiffRequest {
  const { upper, lower, sparse = false, whiteoutsOf } = request;
  return { upper, lower, sparse, whiteoutsOf };
}
