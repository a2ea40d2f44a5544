/** An engine over `node:fs` whose mounts are entries in a list: for the drivers' own logic, without privileges. */
import * as fs from 'node:fs/promises';
import { Readable } from 'node:stream';
import type {
  BatchOp,
  DeferredTeardown,
  Engine,
  IngestResult,
  MountEntry,
  OverlayMount,
  CommitTreeRequest,
  TreeTarRequest,
} from '../../../src/engine/engine.js';
import { LayerStoreError, systemError } from '../../../src/errors.js';

export class FakeEngine {
  readonly name = 'js';
  readonly followsRedirects = false;
  /** Everything that was asked for, in order: `batch mkdir /x`, `mount /x`, `unmount /x`, … */
  readonly log: string[] = [];
  readonly table: MountEntry[] = [];
  readonly mountRequests: OverlayMount[] = [];
  readonly tarRequests: TreeTarRequest[] = [];
  /** Called before each step; what it throws is the step's failure. */
  before: (step: string) => void | Promise<void> = () => undefined;

  features(): { kernel: string } {
    return { kernel: 'fake' };
  }

  async batch(ops: readonly BatchOp[]): Promise<void> {
    const undo: (() => Promise<void>)[] = [];
    try {
      for (const op of ops) {
        await this.#note(`${op.op} ${op.path}`);
        await this.#apply(op, undo);
      }
    } catch (error) {
      for (const step of undo.reverse()) await step();
      throw systemError(error, 'run a batch');
    }
  }

  async #apply(op: BatchOp, undo: (() => Promise<void>)[]): Promise<void> {
    switch (op.op) {
      case 'mkdir':
        try {
          await fs.mkdir(op.path);
        } catch (error) {
          if (op.existOk === true) return;
          throw error;
        }
        undo.push(() => fs.rmdir(op.path));
        return fs.chmod(op.path, op.mode);
      case 'write':
        await fs.writeFile(op.path, op.data, { flag: 'wx' });
        undo.push(() => fs.unlink(op.path));
        return fs.chmod(op.path, op.mode);
      case 'symlink':
        await fs.symlink(op.target, op.path);
        undo.push(() => fs.unlink(op.path));
        return;
      case 'rename':
        return fs.rename(op.path, op.dest);
      case 'exchange':
        await fs.rename(op.path, `${op.path}.x`);
        await fs.rename(op.dest, op.path);
        return fs.rename(`${op.path}.x`, op.dest);
      case 'unlink':
        return fs.rm(op.path, { force: op.missingOk === true });
      case 'rmdir':
        if (this.table.some(({ target }) => target === op.path)) throw failure('EBUSY', -16, 'rmdir', op.path);
        return fs.rmdir(op.path).catch((error: NodeJS.ErrnoException) => {
          if (op.missingOk !== true || error.code !== 'ENOENT') throw error;
        });
      case 'fsync': {
        const file = await fs.open(op.path);
        await file.sync();
        return file.close();
      }
      default:
        // Modes and owners of what is there: no driver logic hangs on them here.
        return;
    }
  }

  async mountOverlay(mount: OverlayMount): Promise<'classic'> {
    await this.#note(`mount ${mount.target}`);
    this.mountRequests.push(mount);
    this.addMount(mount.target, mount.upper === undefined ? 'ro' : `rw,upperdir=${mount.upper}`);
    return 'classic';
  }

  addMount(target: string, options: string, fsType = 'overlay'): void {
    this.table.push({ id: 1, parent: 0, fsType, source: fsType, target, root: '/', options });
  }

  async unmount(target: string): Promise<void> {
    await this.#note(`unmount ${target}`);
    const at = this.table.findLastIndex((entry) => entry.target === target);
    if (at < 0) throw failure('EINVAL', -22, 'umount2', target);
    this.table.splice(at, 1);
  }

  /** As an engine does: the mount point is new, and gone after a failure. */
  async mountOnNewTarget(mount: OverlayMount, mode: number): Promise<{ tier: 'classic'; device: number }> {
    await this.batch([{ op: 'mkdir', path: mount.target, mode }]);
    try {
      return { tier: await this.mountOverlay(mount), device: (await fs.stat(mount.target)).dev };
    } catch (error) {
      await fs.rmdir(mount.target);
      throw error;
    }
  }

  /** The device of a mount in the list is that of its mount point, so the list says whether it is there. */
  async unmountAndRemove(target: string): Promise<'removed' | 'target-left' | 'foreign'> {
    if (!this.table.some((entry) => entry.target === target)) return 'foreign';
    await this.unmount(target);
    return fs.rmdir(target).then(
      () => 'removed',
      () => 'target-left',
    );
  }

  deferredTeardown(): DeferredTeardown {
    return { end: () => Promise.resolve() };
  }

  async names(directory: string, only: 'directories' | 'all'): Promise<string[]> {
    try {
      const entries = await fs.readdir(directory, { withFileTypes: true });
      return entries.filter((entry) => only === 'all' || entry.isDirectory()).map(({ name }) => name);
    } catch (error) {
      throw systemError(error, 'list the directory');
    }
  }

  async mounts(directory: string): Promise<MountEntry[]> {
    await this.#note(`mounts ${directory}`);
    return this.table.filter(({ target }) => target === directory || target.startsWith(`${directory}/`));
  }

  async removeTree(path: string): Promise<void> {
    await this.#note(`remove ${path}`);
    await fs.rm(path, { recursive: true, force: true });
  }

  async copyTree(source: string, target: string): Promise<void> {
    await this.#note(`copy ${source} ${target}`);
    await fs.cp(source, target, { recursive: true });
  }

  async syncFs(paths: readonly string[]): Promise<void> {
    await this.#note(`syncfs ${paths.join(' ')}`);
  }

  async ingest(_source: unknown, request: { directory: string; whiteouts: string }): Promise<IngestResult> {
    await this.#note(`ingest ${request.directory} ${request.whiteouts}`);
    await fs.writeFile(`${request.directory}/ingested`, '');
    return result;
  }

  async commitTree(request: CommitTreeRequest): Promise<IngestResult> {
    await this.#note(`commit ${request.directory} ${request.consume ? 'consume' : 'copy'}`);
    this.tarRequests.push(request);
    if (!request.consume) await fs.cp(request.upper.directories[0] as string, request.directory, { recursive: true });
    await this.#note('committed');
    return result;
  }

  async treeTar(request: TreeTarRequest): Promise<Readable> {
    await this.#note('treeTar');
    this.tarRequests.push(request);
    return Readable.from([Buffer.alloc(1024)]);
  }

  async usage(): Promise<{ size: number; allocated: number; inodes: number }> {
    return { size: 1, allocated: 4096, inodes: 2 };
  }

  async #note(step: string): Promise<void> {
    this.log.push(step);
    await this.before(step);
  }
}

const result: IngestResult = {
  diffID: `sha256:${'a'.repeat(64)}` as IngestResult['diffID'],
  tarSize: 1024,
  size: 0,
  entries: 0,
  compression: 'none',
  blobSize: 1024,
  ignoredXattrs: 0,
  ignoredOwners: 0,
};

export function failure(errnoName: string, errno: number, syscall: string, path: string): LayerStoreError {
  return new LayerStoreError('ERR_SYSTEM', `cannot ${syscall} "${path}": ${errnoName}`, {
    errno,
    errnoName,
    syscall,
    path,
  });
}

export function asEngine(fake: FakeEngine): Engine {
  return fake as unknown as Engine;
}
