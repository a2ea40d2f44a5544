/**
 * Names of images, in Docker's `repositories.json`: `{"Repositories":{"debian":{"debian:12":"sha256:…"}}}`.
 * Source: moby, daemon/internal/refstore/store.go. What is written is what Go's encoder would write: keys in byte order, no blanks.
 */
import type { Digest } from '../digest.js';
import { writeFileAtomic } from '../util/atomic-file.js';
import { quote } from '../util/quote.js';
import { attempt } from './errors.js';
import { readStateFile } from './imagedb.js';
import { asDigest, asObject, optional, parseJson } from './json.js';
import type { ArchiveLimits } from './limits.js';
import { formatName, type ImageName } from '../registry/reference.js';

export class Repositories {
  readonly #path: string;
  readonly #sync: boolean;
  readonly #limits: ArchiveLimits;
  /** repository -> name -> id; replaced whole, so that a failed write changes nothing. */
  #names: ReadonlyMap<string, ReadonlyMap<string, Digest>> = new Map();

  constructor(path: string, options: { sync: boolean; limits: ArchiveLimits }) {
    this.#path = path;
    this.#sync = options.sync;
    this.#limits = options.limits;
  }

  /** Reads the file; a missing one has no names. ERR_BAD_IMAGE for one that cannot be understood: it is never overwritten then. */
  async load(): Promise<void> {
    const bytes = await readStateFile(this.#path, 'read the image names', Infinity);
    if (bytes === undefined) {
      this.#names = new Map();
      return;
    }
    const what = `"${this.#path}"`;
    const limits = { ...this.#limits, maxJsonBytes: Infinity };
    const top = asObject(parseJson(bytes, what, limits), what);
    const names = new Map<string, Map<string, Digest>>();
    for (const [repository, entries] of Object.entries(
      optional(top['Repositories'], asObject, `"Repositories" of ${what}`) ?? {},
    )) {
      const byName = new Map<string, Digest>();
      for (const [name, id] of Object.entries(asObject(entries, `${quote(repository)} of ${what}`))) {
        byName.set(name, asDigest(id, `${quote(name)} of ${what}`));
      }
      names.set(repository, byName);
    }
    this.#names = names;
  }

  get(name: ImageName): Digest | undefined {
    return this.#names.get(name.repository)?.get(formatName(name));
  }

  /** Names of every image that has one, each list in byte order. */
  byImage(): Map<Digest, string[]> {
    const byImage = new Map<Digest, string[]>();
    for (const entries of this.#names.values()) {
      for (const [name, id] of entries) byImage.set(id, [...(byImage.get(id) ?? []), name]);
    }
    for (const names of byImage.values()) names.sort();
    return byImage;
  }

  /** Whether the image that has `name` would still have one without it. */
  leftWithout(name: ImageName): boolean {
    const id = this.get(name);
    const copy = this.#copy();
    new NameEditor(copy).delete(name);
    return [...copy.values()].some((entries) => [...entries.values()].includes(id as Digest));
  }

  /** All changes in one write. */
  async change(edit: (names: NameEditor) => void): Promise<void> {
    const copy = this.#copy();
    edit(new NameEditor(copy));
    await attempt('record the image names', () =>
      writeFileAtomic(this.#path, format(copy), { mode: 0o600, sync: this.#sync }),
    );
    this.#names = copy;
  }

  #copy(): Map<string, Map<string, Digest>> {
    return new Map([...this.#names].map(([repository, entries]) => [repository, new Map(entries)]));
  }
}

export class NameEditor {
  readonly #names: Map<string, Map<string, Digest>>;

  constructor(names: Map<string, Map<string, Digest>>) {
    this.#names = names;
  }

  set(name: ImageName, id: Digest): void {
    const entries = this.#names.get(name.repository) ?? new Map<string, Digest>();
    entries.set(formatName(name), id);
    this.#names.set(name.repository, entries);
  }

  /** Takes a name away; with the last tag of a repository for this image, as Docker does, also its names with a digest. */
  delete(name: ImageName): void {
    const entries = this.#names.get(name.repository);
    const id = entries?.get(formatName(name));
    if (entries === undefined || id === undefined) return;
    entries.delete(formatName(name));
    const left = [...entries].filter(([, other]) => other === id).map(([key]) => key);
    if (left.every((key) => key.includes('@'))) for (const key of left) entries.delete(key);
    if (entries.size === 0) this.#names.delete(name.repository);
  }

  deleteImage(id: Digest): void {
    for (const [repository, entries] of this.#names) {
      for (const [name, other] of entries) if (other === id) entries.delete(name);
      if (entries.size === 0) this.#names.delete(repository);
    }
  }
}

function format(names: ReadonlyMap<string, ReadonlyMap<string, Digest>>): string {
  const sorted = <T>(map: ReadonlyMap<string, T>): [string, T][] => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  const repositories = sorted(names).map(
    ([repository, entries]) => [repository, Object.fromEntries(sorted(entries))] as const,
  );
  return JSON.stringify({ Repositories: Object.fromEntries(repositories) });
}
