/**
 * The entries of an image archive: what an archive of blobs needs of a tar. The layers' own tars are read by the engine.
 * Names stay names here: they are looked up in a map, never used as paths.
 */
import { LayerStoreError } from '../errors.js';
import type { ByteSource } from '../tar/byte-reader.js';
import { shown } from '../tar/errors.js';
import { cleanPath, parentPath } from '../tar/path.js';
import { TarReader, type TarEntry } from '../tar/reader.js';
import { quote } from '../util/quote.js';
import { badImage, noImageArchive, overLimit } from './errors.js';

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

const MAX_LINKS = 40;
/** The files that make an archive one of images. */
const MARKERS = new Set(['index.json', 'manifest.json', 'repositories']);

type Slot<Content> =
  { readonly content: Content } | { readonly link: string } | { readonly other: ArchiveEntry['type'] };

/**
 * The names inside an image archive: a map from a cleaned name to what lies there. A name that leaves the archive, one
 * that comes twice and a link that leads out are refused, whether or not anybody asks for them: as soon as it is known
 * that this is an image archive at all. The tar of a root file system has such links too, and gets a better answer.
 */
export class ArchiveNames<Content> {
  readonly #slots = new Map<string, Slot<Content>>();
  readonly #title: string;
  readonly #maxEntries: number;
  #count = 0;
  #isImage = false;
  /** Why the archive will be refused, once it has shown that it is one of images. */
  #refusal: unknown;

  /** @param title what the archive is called in errors */
  constructor(title: string, maxEntries: number) {
    this.#title = title;
    this.#maxEntries = maxEntries;
  }

  /**
   * Notes an entry of any type. For a regular file gives the cleaned name to call {@link addContent} with, undefined where
   * its content is not needed.
   */
  admit(entry: ArchiveEntry): string | undefined {
    if (++this.#count > this.#maxEntries) {
      if (this.#refusal !== undefined) throw noImageArchive(this.#title, this.#refusal);
      throw overLimit('the number of entries of the archive', 'maxArchiveEntries', this.#maxEntries);
    }
    try {
      const name = this.#check(entry);
      if (MARKERS.has(name)) this.#isImage = true;
      if (entry.type === 'file') return this.#admitted(name);
      this.#addOther(name, entry);
    } catch (error) {
      this.#refusal ??= error;
    }
    return this.#admitted(undefined);
  }

  #admitted(name: string | undefined): string | undefined {
    if (this.#refusal === undefined) return name;
    if (this.#isImage) throw this.#refusal;
    return undefined;
  }

  /** All entries were admitted. */
  end(): void {
    if (this.#refusal !== undefined) throw noImageArchive(this.#title, this.#refusal);
  }

  /** The cleaned name under which an entry goes; '' for the archive's own top directory. Refuses what must not be there. */
  #check(entry: ArchiveEntry): string {
    const name = cleanName(entry.name);
    const there = this.#slots.get(name);
    const bothDirectories =
      entry.type === 'directory' && (there === undefined || ('other' in there && there.other === 'directory'));
    if (name === '' ? entry.type !== 'directory' : there !== undefined && !bothDirectories) {
      throw badImage(
        `the archive has ${quote(entry.name)} twice, or as a file and as a directory; it is unclear which one counts`,
      );
    }
    return name;
  }

  addContent(name: string, content: Content): void {
    this.#slots.set(name, { content });
  }

  /** Everything that is no regular file. A hard link's target counts from the top, a symbolic one's from its directory. */
  #addOther(name: string, entry: ArchiveEntry): void {
    if (name === '') return;
    if (entry.type === 'link') this.#slots.set(name, { link: cleanName(entry.target) });
    else if (entry.type === 'symlink') this.#slots.set(name, { link: symlinkTarget(name, entry.target) });
    else this.#slots.set(name, { other: entry.type });
  }

  /** The regular file that `name` leads to, through links. */
  get(name: string): Content | undefined {
    let current = name;
    for (let hops = 0; hops <= MAX_LINKS; hops++) {
      const slot = this.#slots.get(current) ?? this.#throughDirectoryLink(current);
      if (slot === undefined) return undefined;
      if ('content' in slot) return slot.content;
      if ('other' in slot) throw badImage(`${quote(name)} in the archive is not a regular file`);
      current = slot.link;
    }
    throw badImage(`${quote(name)} in the archive is a link that leads round in a circle`);
  }

  /** `a/b/c` where `a/b` is itself a link to a directory. */
  #throughDirectoryLink(name: string): Slot<Content> | undefined {
    for (let slash = name.lastIndexOf('/'); slash > 0; slash = name.lastIndexOf('/', slash - 1)) {
      const slot = this.#slots.get(name.slice(0, slash));
      if (slot !== undefined && 'link' in slot) return { link: `${slot.link}${name.slice(slash)}` };
    }
    return undefined;
  }
}

/** A name without empty and `.` components. ERR_BAD_IMAGE for one that is absolute, has `..` or a zero byte. */
export function cleanName(name: string): string {
  const clean =
    name.startsWith('/') || name.includes('\0') || name.split('/').includes('..') ? undefined : cleanPath(name);
  if (clean === undefined) throw badImage(`the archive holds the name ${quote(name)}, which leads out of it`);
  return clean;
}

function symlinkTarget(name: string, target: string): string {
  const clean = target.startsWith('/') ? undefined : cleanPath(target, parentPath(name));
  if (clean === undefined)
    throw badImage(`the link ${quote(name)} of the archive points to ${quote(target)}, which lies outside of it`);
  return clean;
}
