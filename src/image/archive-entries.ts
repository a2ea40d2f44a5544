/**
 * The entries of an image archive: what an archive of blobs needs of a tar. The layers' own tars are read by the engine.
 * Names stay names here: they are looked up in a map, never used as paths.
 */
import { LayerStoreError } from '../errors.js';
import type { ByteSource } from '../tar/byte-reader.js';
import { shown } from '../tar/errors.js';
import { TarReader, type TarEntry } from '../tar/reader.js';
import { badImage } from './errors.js';

/** A PAX header or a long name of an archive of blobs is a few hundred bytes. */
const MAX_HEADER_BYTES = 64 * 1024;

export interface ArchiveEntry {
  readonly name: string;
  readonly type: 'file' | 'directory' | 'link' | 'symlink' | 'other';
  /** Bytes of content. */
  readonly size: number;
  /** Of links. */
  readonly target: string;
}

/** Reads an archive forward; what is wrong with its tar is ERR_BAD_IMAGE. */
export class ArchiveEntries {
  readonly #tar: TarReader;

  constructor(bytes: ByteSource) {
    this.#tar = new TarReader(bytes, {
      maxHeaderBytes: MAX_HEADER_BYTES,
      maxXattrs: Infinity,
      maxXattrBytes: Infinity,
      keepRaw: false,
    });
  }

  /** The next entry, or undefined at the end. The content of the last one must have been read or skipped. */
  async next(): Promise<ArchiveEntry | undefined> {
    return told(async () => {
      let entry = await this.#tar.next();
      while (entry?.type === 'g') entry = await this.#tar.next(); // speaks of all entries, and of nothing that is used here
      if (entry?.regions !== undefined)
        throw badImage('the archive holds a sparse file; image archives are written without');
      return entry === undefined ? undefined : archiveEntry(entry);
    });
  }

  /** Content of the current entry as it comes; undefined at its end. */
  content(): Promise<Uint8Array | undefined> {
    return told(() => this.#tar.content());
  }

  /** Passes what is left of the content. */
  skip(): Promise<void> {
    return told(() => this.#tar.skipContent());
  }
}

function archiveEntry({ name: bytes, linkName, type, stored }: TarEntry): ArchiveEntry {
  const name = shown(bytes);
  return { name, type: kindOf(type, name), size: stored, target: shown(linkName) };
}

function kindOf(type: string, name: string): ArchiveEntry['type'] {
  if (type === '5') return 'directory';
  if (type === '1') return 'link';
  if (type === '2') return 'symlink';
  if (type === '0' || type === '7') return name.endsWith('/') ? 'directory' : 'file';
  return 'other';
}

const FAULTS = new Set(['ERR_BAD_TAR', 'ERR_BAD_COMPRESSION', 'ERR_LIMIT_EXCEEDED']);

async function told<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!LayerStoreError.is(error) || !FAULTS.has(error.code)) throw error;
    const place = error.offset === undefined ? '' : `, at byte ${error.offset}`;
    throw badImage(`the archive is damaged, truncated or no tar: ${error.detail ?? error.message}${place}`, error);
  }
}
