/**
 * Where the trials work: an ext4 of its own on a loop device, made anew instead of emptied. ext4 looks long for inodes
 * where much was deleted shortly before, so a benchmark that deletes measures its own past. Where no such file system can
 * be made (no root, no loop device, little room) it is a plain directory that is emptied, and a line says so.
 */
import { execFile } from 'node:child_process';
import { mkdir, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const GIB = 2 ** 30;
/** The image is sparse; it takes room on disk only for what is written. */
const MOST = 64 * GIB;
const LEAST = 6 * GIB;

/** EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH. */
const DROP = `import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack("I", 2))`;

export class FreshDisk {
  /** The directory to work in; what was in it is gone after `renew`. */
  readonly path: string;
  readonly #scratch: string;
  /** Bytes of the image; undefined: a plain directory. */
  readonly #size: number | undefined;
  #image: string | undefined;
  #n = 0;

  private constructor(scratch: string, size: number | undefined) {
    this.#scratch = scratch;
    this.#size = size;
    this.path = join(scratch, 'disk');
  }

  /** Below `scratch`. */
  static async make(scratch: string, note: (text: string) => void): Promise<FreshDisk> {
    await mkdir(join(scratch, 'disk'), { recursive: true });
    try {
      const { bavail, bsize } = await statfs(scratch);
      const size = Math.min(MOST, Math.floor((bavail * bsize * 0.8) / GIB) * GIB);
      if (size < LEAST) throw new Error(`less than ${LEAST / GIB} GiB are free`);
      const disk = new FreshDisk(scratch, size);
      await disk.renew();
      return disk;
    } catch (error) {
      note(
        `works in a plain directory, not on a fresh ext4: ${(error as Error).message.trim()}; making files may be slow`,
      );
      return new FreshDisk(scratch, undefined);
    }
  }

  /** What the results say of it. */
  get kind(): string {
    return this.#size === undefined ? 'a plain directory' : 'a fresh ext4 on a loop device';
  }

  async renew(): Promise<void> {
    await this.close();
    if (this.#size === undefined) {
      await mkdir(this.path);
      return;
    }
    const image = join(this.#scratch, `disk-${this.#n++}.img`);
    await mkdir(this.path, { recursive: true });
    try {
      await writeFile(image, '');
      await truncate(image, this.#size);
      // A new sparse file reads as zeros, so neither mkfs nor the kernel behind it needs to write them.
      await execute('mkfs.ext4', ['-q', '-F', '-E', 'nodiscard,lazy_itable_init=1,lazy_journal_init=1', image]);
      await execute('mount', ['-o', 'loop,noinit_itable', image, this.path]);
      this.#image = image;
      // Whoever syncs would wait for what others wrote to the same disk before, a removed image of gigabytes among it.
      await execute('sync');
    } catch (error) {
      await rm(image, { force: true });
      throw error;
    }
  }

  async close(): Promise<void> {
    if (this.#image !== undefined) {
      await this.#unmount();
      await rm(this.#image, { force: true });
      this.#image = undefined;
    }
    await rm(this.path, { recursive: true, force: true });
  }

  /** A server that was just stopped may hold it a little longer. */
  async #unmount(): Promise<void> {
    // What is dropped need not be written first. Where this fails it is written, and that is all.
    await execute('/usr/bin/python3', ['-c', DROP, this.path]).catch(() => undefined);
    for (let attempt = 0; attempt < 50; attempt++) {
      try {
        await execute('umount', ['--', this.path]);
        return;
      } catch {
        await sleep(100); // busy; what comes behind the loop does not wait
      }
    }
    await execute('umount', ['-l', '--', this.path]);
  }
}
