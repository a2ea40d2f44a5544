/**
 * What refers to layers from outside of the process. Named references keep layers across restarts: all of them lie in one
 * file that is replaced whole, and changes that come while it is written share the next write. Beside the store Docker's
 * images and its builder may share the root, and `image/` reads their records for us: where they are there and nobody can
 * name all that they refer to, nothing may be deleted.
 */
import { stat } from 'node:fs/promises';
import { type ChainID, isDigest } from '../digest.js';
import { invalidArgument, LayerStoreError, systemError } from '../errors.js';
import { writeFileAtomic } from '../util/atomic-file.js';
import { defined } from '../util/defined.js';
import { formatValue } from '../util/quote.js';
import { NotRegularError, readRegularFile } from '../util/regular-file.js';
import type { Reference } from './types.js';

/** Names the chains that somebody beside this store refers to; rejects where it cannot name all of them. */
export type ReferenceSource = () => Promise<Iterable<ChainID>>;

export interface ExternalReferences {
  readonly chains: ReadonlySet<ChainID>;
  /** Why the set cannot be complete. */
  readonly incomplete: string | undefined;
}

interface Entry {
  readonly name: string;
  readonly chainID: ChainID;
  /** Milliseconds since 1970. */
  readonly expires: number | undefined;
}

const FORMAT = 1;
/** A million references with long names. */
const MAX_BYTES = 1 << 30;
const CONTROL = /[\u0000-\u001f\u007f]/;

export function checkReferenceName(name: unknown): string {
  if (typeof name === 'string' && name !== '' && Buffer.byteLength(name) <= 1024 && !CONTROL.test(name)) return name;
  throw invalidArgument(
    `${formatValue(name)} is not a valid reference name: use 1 to 1,024 bytes without control characters`,
  );
}

export function checkExpiry(expires: unknown): Date | undefined {
  if (expires === undefined) return undefined;
  if (expires instanceof Date && Number.isFinite(expires.getTime())) return expires;
  throw invalidArgument(`"expires" must be a valid Date, not ${formatValue(expires)}`);
}

export class References {
  readonly #path: string;
  readonly #sync: boolean;
  readonly #entries = new Map<string, Entry>();
  /** Made on first use: an open does not need it. */
  #byChain: Map<ChainID, Set<Entry>> | undefined;
  /** The write that has not begun yet; a change now joins it. */
  #queued: Write | undefined;
  /** The write under way; its changes are in `#entries` and not on disk yet. */
  #running: Write | undefined;
  /** Why the list may lack some: then nothing counts as unreferenced. */
  #incomplete: string | undefined;

  readonly #docker: readonly string[];
  readonly #sources: ReferenceSource[] = [];

  /** `docker`: directories in which Docker's records lie where it shares the root. */
  constructor(path: string, options: { sync: boolean; docker: readonly string[] }) {
    this.#path = path;
    this.#sync = options.sync;
    this.#docker = options.docker;
  }

  addSource(source: ReferenceSource): void {
    this.#sources.push(source);
  }

  /** What others refer to; nothing may be deleted where that is not complete, nor where the named ones are not. */
  async external(): Promise<ExternalReferences> {
    const chains = new Set<ChainID>();
    if (this.#incomplete !== undefined) return { chains, incomplete: this.#incomplete };
    if (this.#sources.length === 0) {
      const docker = await firstThere(this.#docker);
      const incomplete = `"${docker}" holds Docker's records and nothing reads them: call openImages(store) first`;
      return { chains, incomplete: docker === undefined ? undefined : incomplete };
    }
    for (const source of this.#sources) {
      try {
        for (const chain of await source()) chains.add(chain);
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        const incomplete = `what other records under the root refer to cannot be read completely: ${why}`;
        return { chains, incomplete };
      }
    }
    return { chains, incomplete: undefined };
  }

  get incomplete(): string | undefined {
    return this.#incomplete;
  }

  /** Whether a reference that has not expired keeps this very layer. */
  holds(chainID: ChainID): boolean {
    if (this.#incomplete !== undefined) return true;
    const now = Date.now();
    this.#byChain ??= byChain(this.#entries.values());
    for (const entry of this.#byChain.get(chainID) ?? []) if (alive(entry, now)) return true;
    // A reference that is about to go keeps its layer until that is on disk: the write may fail.
    return [this.#running, this.#queued].some((write) => write?.replaces(chainID, now) === true);
  }

  list(): readonly Reference[] {
    const now = Date.now();
    return [...this.#entries.values()].filter((entry) => alive(entry, now)).map(toReference);
  }

  find(name: string): Reference | undefined {
    const entry = this.#entries.get(name);
    return entry === undefined ? undefined : toReference(entry);
  }

  /** Chains named by any reference, expired or not, that are not `there`. */
  dangling(there: (chainID: ChainID) => boolean): Iterable<ChainID> {
    const missing = new Set<ChainID>();
    for (const { chainID } of this.#entries.values()) if (!there(chainID)) missing.add(chainID);
    return missing;
  }

  /** Adds a reference, or points an old one at another layer. Written when it resolves; a failed write changes nothing. */
  async set(name: string, chainID: ChainID, expires: Date | undefined): Promise<void> {
    await this.#change('keep a reference', new Map([[name, { name, chainID, expires: expires?.getTime() }]]));
  }

  /** Takes references away; a failed write leaves them. */
  async drop(names: readonly string[]): Promise<void> {
    await this.#change('drop a reference', new Map(names.map((name) => [name, undefined])));
  }

  expired(): string[] {
    const now = Date.now();
    return [...this.#entries.values()].filter((entry) => !alive(entry, now)).map((entry) => entry.name);
  }

  /** Reads the file anew; gives what was wrong with it, if anything was. */
  async load(): Promise<string | undefined> {
    let text: string | undefined;
    let problem: string | undefined;
    try {
      text = (await readRegularFile(this.#path, MAX_BYTES))?.toString('utf8');
    } catch (error) {
      if (!(error instanceof NotRegularError)) throw systemError(error, 'read the named references');
      problem = `it ${error.message}`;
    }
    this.#entries.clear();
    this.#byChain = undefined;
    this.#incomplete = undefined;
    if (text !== undefined) problem = this.#parse(text);
    this.#incomplete ??= problem === undefined ? undefined : `"${this.#path}" was damaged (${problem})`;
    return problem;
  }

  /** Writes down that references were lost, after the damaged file was set aside. */
  async markIncomplete(): Promise<void> {
    await this.#change('write the named references', new Map());
  }

  #parse(text: string): string | undefined {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return 'it is no JSON'; // the parser's words would only repeat the content
    }
    if (typeof value !== 'object' || value === null) return 'it holds no object';
    const { version, incomplete, references } = value as Record<string, unknown>;
    if (version !== FORMAT) return `its version is ${formatValue(version)}, not ${FORMAT}`;
    if (!Array.isArray(references)) return 'it has no list of references';
    if (incomplete !== undefined)
      this.#incomplete = typeof incomplete === 'string' ? incomplete : 'its list is marked as incomplete';
    let bad = 0;
    for (const item of references as unknown[]) {
      const entry = toEntry(item);
      if (entry === undefined) bad += 1;
      else this.#replace(entry.name, entry);
    }
    return bad === 0 ? undefined : `${bad} of ${references.length} entries are unreadable`;
  }

  #replace(name: string, entry: Entry | undefined): void {
    const old = this.#entries.get(name);
    if (old !== undefined) {
      const entries = this.#byChain?.get(old.chainID);
      entries?.delete(old);
      if (entries?.size === 0) this.#byChain?.delete(old.chainID);
      this.#entries.delete(name);
    }
    if (entry === undefined) return;
    this.#entries.set(name, entry);
    if (this.#byChain !== undefined) addTo(this.#byChain, entry);
  }

  /** Changes the list at once, and writes it. Changes that come before the write begins share it. */
  async #change(action: string, changes: ReadonlyMap<string, Entry | undefined>): Promise<void> {
    const write = (this.#queued ??= this.#queue());
    for (const [name, entry] of changes) {
      write.note(name, this.#entries.get(name));
      this.#replace(name, entry);
    }
    try {
      await write.done;
    } catch (error) {
      throw systemError(error, action, 'see to the file system and try again');
    }
  }

  /** The next write: begins when the one before it has ended, well or not. */
  #queue(): Write {
    const before = this.#running?.done ?? Promise.resolve();
    const write: Write = new Write(
      before
        .catch(() => undefined)
        .then(async () => {
          this.#queued = undefined;
          this.#running = write;
          try {
            await this.#writeNow();
          } catch (error) {
            this.#undo(write);
            throw error;
          } finally {
            this.#running = undefined;
          }
        }),
    );
    return write;
  }

  /** Called once for a failed write: restores the list to what is on disk, except for later changes. */
  #undo(write: Write): void {
    for (const [name, before] of write.before) {
      if (this.#queued?.before.has(name) === true) this.#queued.before.set(name, before);
      else this.#replace(name, before);
    }
  }

  async #writeNow(): Promise<void> {
    const references = [...this.#entries.values()].map(({ name, chainID, expires }) => ({
      name,
      chainID,
      ...defined({ expires: expires === undefined ? undefined : new Date(expires).toISOString() }),
    }));
    const incomplete = defined({ incomplete: this.#incomplete });
    const text = `${JSON.stringify({ version: FORMAT, ...incomplete, references }, undefined, 1)}\n`;
    await writeFileAtomic(this.#path, text, { mode: 0o600, sync: this.#sync });
  }
}

/** One write of the file, shared by all changes that were made before it began. */
class Write {
  readonly done: Promise<void>;
  /** What each changed name was before this write: what is true again where it fails. */
  readonly before = new Map<string, Entry | undefined>();

  constructor(done: Promise<void>) {
    this.done = done;
  }

  note(name: string, before: Entry | undefined): void {
    if (!this.before.has(name)) this.before.set(name, before);
  }

  /** Whether a reference on `chainID` is taken away or replaced by it. */
  replaces(chainID: ChainID, now: number): boolean {
    for (const entry of this.before.values()) if (entry?.chainID === chainID && alive(entry, now)) return true;
    return false;
  }
}

/** What a call on a name that is no reference rejects with. */
export function noSuchReference(name: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_NOT_RETAINED',
    `there is no reference named ${formatValue(name)}: references() lists the ones that are`,
  );
}

function byChain(entries: Iterable<Entry>): Map<ChainID, Set<Entry>> {
  const chains = new Map<ChainID, Set<Entry>>();
  for (const entry of entries) addTo(chains, entry);
  return chains;
}

function addTo(chains: Map<ChainID, Set<Entry>>, entry: Entry): void {
  const entries = chains.get(entry.chainID);
  if (entries === undefined) chains.set(entry.chainID, new Set([entry]));
  else entries.add(entry);
}

function alive(entry: Entry, now: number): boolean {
  return entry.expires === undefined || entry.expires > now;
}

function toReference({ name, chainID, expires }: Entry): Reference {
  return { name, chainID, ...defined({ expires: expires === undefined ? undefined : new Date(expires) }) };
}

function toEntry(item: unknown): Entry | undefined {
  if (typeof item !== 'object' || item === null) return undefined;
  const { name, chainID, expires } = item as Record<string, unknown>;
  if (typeof name !== 'string' || name === '' || !isDigest(chainID)) return undefined;
  if (expires !== undefined && typeof expires !== 'string') return undefined;
  const time = expires === undefined ? undefined : Date.parse(expires);
  if (time !== undefined && !Number.isFinite(time)) return undefined;
  return { name, chainID: chainID as ChainID, expires: time };
}

async function firstThere(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    try {
      await stat(path);
      return path;
    } catch (error) {
      // Not there is the usual case; anything else means that we cannot know.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return path;
    }
  }
  return undefined;
}
