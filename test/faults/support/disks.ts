/**
 * File systems for tests: images on loop devices, and one XFS that can clone images in no time. Whoever makes a `Disks`
 * closes it; that unmounts and removes everything, also after a failure.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { mountsBelow } from '../../../src/testing/suite-directory.js';
import { makeTempDir, removeTempDir } from '../../support/temp.js';

export type FileSystem = 'ext4' | 'xfs' | 'btrfs';

const MIB = 1024 * 1024;
/** The smallest that the tools make without complaint. */
const SIZE: Readonly<Record<FileSystem, number>> = { ext4: 160 * MIB, xfs: 320 * MIB, btrfs: 160 * MIB };
/** Nothing is written by the clock: what is on the disk was put there by a sync. */
const OPTIONS: Readonly<Record<FileSystem, string>> = {
  ext4: 'loop,commit=300,data=ordered,noatime',
  xfs: 'loop,nouuid,noatime',
  btrfs: 'loop,commit=300,noatime',
};

export class Disks {
  readonly directory: string;
  #count = 0;

  private constructor(directory: string) {
    this.directory = directory;
  }

  /** On the machine's own file system: images, but no clones. */
  static plain(t: Pick<TestContext, 'after'>): Disks {
    const directory = makeTempDir('disks');
    t.after(() => removeTempDir(directory));
    return new Disks(directory);
  }

  /** On an XFS of its own, so that images can be cloned. */
  static cloning(t: Pick<TestContext, 'after'>): Disks {
    const base = memory(t, 'clones');
    const image = join(base, 'outer.img');
    writeFileSync(image, '');
    truncateSync(image, 8192 * MIB);
    run('mkfs.xfs', ['-q', '-m', 'reflink=1', image]);
    const directory = join(base, 'outer');
    mkdirSync(directory);
    run('mount', ['-o', 'loop,noatime', image, directory]);
    return new Disks(directory);
  }

  /** A new image with a file system on it. */
  image(type: FileSystem, options: { bytes?: number; mkfs?: readonly string[] } = {}): string {
    const image = join(this.directory, `disk-${(this.#count += 1)}.img`);
    writeFileSync(image, '');
    truncateSync(image, options.bytes ?? SIZE[type]);
    const quiet = type === 'ext4' ? ['-q', '-F', '-E', 'lazy_itable_init=0,nodiscard'] : ['-q'];
    run(`mkfs.${type}`, [...quiet, ...(options.mkfs ?? []), image]);
    return image;
  }

  /** Mounts an image; give the answer to {@link unmount}. */
  mount(image: string, type: FileSystem): string {
    const directory = join(this.directory, `mnt-${(this.#count += 1)}`);
    mkdirSync(directory);
    run('mount', ['-t', type, '-o', OPTIONS[type], image, directory]);
    return directory;
  }

  unmount(directory: string): void {
    for (const target of mountsBelow(directory).reverse()) run('umount', ['--', target]);
    rmSync(directory, { recursive: true, force: true });
  }

  /** What the disk holds at this moment; one atomic step of the file system below. */
  clone(image: string): string {
    const path = join(this.directory, `clone-${(this.#count += 1)}.img`);
    run('cp', ['--reflink=always', '--', image, path]);
    return path;
  }

  remove(image: string): void {
    rmSync(image, { force: true });
  }
}

/** A directory in memory, gone after the test: syncs cost nothing there, and thousands of moments can be looked at. */
export function memory(t: Pick<TestContext, 'after'>, name: string): string {
  const directory = makeTempDir(name);
  t.after(() => removeTempDir(directory));
  run('mount', ['-t', 'tmpfs', '-o', 'size=3g,mode=0755', 'layerstore-test', directory]);
  return directory;
}

export function run(command: string, args: readonly string[]): void {
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
}
