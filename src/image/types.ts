/** The public shapes of images: what is loaded, listed and saved. No logic. */
import type { Readable, Writable } from 'node:stream';
import type { ChainID, DiffID, Digest } from '../digest.js';
import type { Progress, UnpackLimits } from '../engine/engine.js';
import type { Descriptor } from '../metadata/metadata-store.js';
import type { LayerMetadata } from '../store/types.js';

/** How a container of the image is run: `config` of an {@link ImageConfig}. Members that are not listed are kept. */
export interface ContainerConfig {
  /** `NAME=VALUE` */
  Env?: readonly string[];
  Cmd?: readonly string[];
  Entrypoint?: readonly string[];
  WorkingDir?: string;
  /** `user`, `uid`, `user:group` or `uid:gid`. */
  User?: string;
  Labels?: Readonly<Record<string, string>>;
  /** `80/tcp`, `53/udp`; a number alone is TCP. */
  ExposedPorts?: Readonly<Record<string, object>>;
  /** Absolute paths. */
  Volumes?: Readonly<Record<string, object>>;
  /** `SIGTERM`, or a number. */
  StopSignal?: string;
  [member: string]: unknown;
}

/** How one layer came to be, or one step that made none (`empty_layer`). */
export interface HistoryEntry {
  /** RFC 3339. */
  created?: string;
  created_by?: string;
  author?: string;
  comment?: string;
  empty_layer?: boolean;
  [member: string]: unknown;
}

/**
 * The configuration of an image, as https://github.com/opencontainers/image-spec/blob/main/config.md has it. Of a loaded
 * image only `rootfs` was checked; the rest is what its maker wrote. Members that are not listed are kept.
 */
export interface ImageConfig {
  os?: string;
  architecture?: string;
  variant?: string;
  /** RFC 3339. */
  created?: string;
  author?: string;
  config?: ContainerConfig;
  /** Base first. */
  rootfs: { type?: string; diff_ids?: readonly DiffID[] | null };
  /** Oldest first. */
  history?: readonly HistoryEntry[];
  [member: string]: unknown;
}

/**
 * An image as it stood when it was asked for; a later `tag` or `remove` does not change it.
 *
 * @example
 * ```ts
 * for (const { id, names, size, diffIDs } of await images.load({ path: 'debian.tar' }))
 *   console.log(id, names, `${size} bytes in ${diffIDs.length} layers`);
 * ```
 */
export interface Image {
  /** SHA-256 of the configuration's bytes. */
  readonly id: Digest;
  /** Names with a tag in Docker's short form, in byte order: `debian:12`, `ghcr.io/a/b:1`. */
  readonly names: readonly string[];
  /** Names with a digest, as Docker records them for what it pulled: `debian@sha256:…`. */
  readonly digests: readonly string[];
  /** The top layer; undefined for an image without layers (`FROM scratch` and metadata alone). */
  readonly chainID: ChainID | undefined;
  /** Base first. */
  readonly diffIDs: readonly DiffID[];
  readonly config: ImageConfig;
  /** The configuration byte for byte, so that ids are stable. */
  readonly rawConfig: Uint8Array;
  /** Bytes of all layers, as `Layer.size()` counts them. */
  readonly size: number;
}

/** What happens to one layer of an image that is being loaded. */
export interface ImageProgress extends Progress {
  /** Id of the image. */
  image: Digest;
  /** Absent only for the oldest archives, whose layers have no diff id before they are read. */
  diffID?: DiffID;
  /** Position of the layer, from 0 for the base, and how many the image has. */
  layer: number;
  layers: number;
  /** `present`: the store had it, nothing is read. */
  status: 'present' | 'unpacking' | 'done';
}
export type ImageProgressListener = (progress: ImageProgress) => void;

/** Limits on archives, beside those on each layer. Over one: ERR_LIMIT_EXCEEDED. `Infinity` lifts one. */
export interface ImageLimits extends UnpackLimits {
  /** Bytes of an index, manifest or configuration. Default 8 MiB. */
  maxJsonBytes?: number;
  /** Nesting of arrays and objects in one of them. Default 100. */
  maxJsonDepth?: number;
  /** Layers of an image. Default 1,000 (the store's `maxDepth` is a limit of its own). */
  maxLayers?: number;
  /** Images of an archive. Default 1,000. */
  maxImages?: number;
  /** Entries of an archive, and descriptors in all of its indexes. Default 100,000. */
  maxArchiveEntries?: number;
  /** Bytes of a stream kept on disk until they are needed. Default: no limit but the free-space reserve `minFreeBytes`. */
  maxSpoolBytes?: number;
}

export interface LoadOptions {
  /** `os/architecture[/variant]`, `linux/arm64`. Default: this machine's, where an archive has more than one. */
  platform?: string;
  /** Stops and leaves nothing behind; rejects with `signal.reason`. */
  signal?: AbortSignal;
  /** At most 10 reports a second for each layer, and one for each change of `status`. */
  onProgress?: ImageProgressListener;
  limits?: ImageLimits;
}

export interface CreateImageOptions {
  /**
   * Top layer of the new image. It must stand on the base's top layer, where there is a base. Default: the base's top
   * layer, so that the image differs by its configuration alone; without a base, no layers.
   */
  chainID?: ChainID;
  /** Name or id of an image: its configuration and history are where this one begins. */
  base?: string;
  /** How a container is run. Each member replaces the base's member whole; others stay. */
  config?: ContainerConfig;
  /** Names it gets, each with a tag. A name that another image had moves. */
  names?: readonly string[];
  /** `os/architecture[/variant]`. Default: the base's, else this machine's. */
  platform?: string;
  /** Default: now. With a date the image is reproducible: the same options on the same layers give the same id. */
  created?: Date;
  /** Goes into the history, which has an entry for each new layer. */
  comment?: string;
}

/** One file that a layer adds, changes or removes. Directories are not listed. */
export interface AnalyzedFile {
  /** Without a leading slash. Bytes that are no UTF-8 are replaced. */
  path: string;
  /** `modify`: a layer below, or this one before, had something at the path. */
  kind: 'add' | 'modify' | 'delete';
  /** `link` is a further name of a file, without bytes of its own. Of what a layer removes it is `other`. */
  type: 'file' | 'link' | 'symlink' | 'other';
  /** Bytes of content; of what is removed, those of everything below it. */
  size: number;
  /** CRC-64 of the content, from the layer's record: files of one size and one checksum count as equal. */
  crc64: string | undefined;
}

/** What one layer does to the image. */
export interface LayerAnalysis {
  chainID: ChainID;
  diffID: DiffID;
  /** The step that made it, where the configuration tells. */
  history: HistoryEntry | undefined;
  added: { files: number; bytes: number };
  changed: { files: number; bytes: number };
  removed: { files: number; bytes: number };
  /** In the order of the layer's tar. */
  files: readonly AnalyzedFile[];
}

/** Bytes at one path that later layers replaced or removed. */
export interface WastedPath {
  path: string;
  bytes: number;
  /** How often the path was written in vain. */
  times: number;
}

/** One content that lies in the image several times, as files of their own. */
export interface DuplicateContent {
  /** Of one copy. */
  size: number;
  /** Of all copies but one. */
  bytes: number;
  /** `layer`: position from 0 for the base. */
  files: readonly { path: string; layer: number }[];
}

/** What an image is made of, by {@link Images.analyze}. */
export interface ImageAnalysis {
  image: Digest;
  /** Base first. */
  layers: readonly LayerAnalysis[];
  /** Bytes of all files of all layers. */
  bytes: number;
  /** Bytes that were written, and later replaced or removed. */
  wastedBytes: number;
  /** From 0 to 1: the part of `bytes` that is not wasted. */
  efficiency: number;
  /** The 100 paths that waste most. */
  wasted: readonly WastedPath[];
  /** The 100 contents of 512 bytes or more whose copies take most. */
  duplicates: readonly DuplicateContent[];
  /** The 100 biggest files of all layers, also those that a later layer removes. */
  biggest: readonly { path: string; size: number; layer: number }[];
}

export interface SaveOptions {
  /**
   * Default `docker`: what `docker save` writes since version 25: `manifest.json` beside an OCI layout, in one tar.
   * `oci`: the OCI layout alone, as a tar; as a directory where the target's path ends in `/` or is an empty directory.
   */
  format?: 'docker' | 'oci';
  /** Of the layers. Default `none`: they are written byte for byte as they were registered. */
  compression?: 'none' | 'gzip' | 'zstd';
  /** Stops it and leaves nothing behind; rejects with `signal.reason`. */
  signal?: AbortSignal;
  /** At most 10 reports a second, and one at the beginning and the end of each layer. */
  onProgress?: SaveProgressListener;
}

/** How far one layer of an image that is being saved is. */
export interface SaveProgress {
  /** Id of the image. */
  image: Digest;
  diffID: DiffID;
  /** Position of the layer, from 0 for the base, and how many the image has. */
  layer: number;
  layers: number;
  /** Of the layer's tar, before any compression. */
  bytesWritten: number;
  totalBytes: number;
}
export type SaveProgressListener = (progress: SaveProgress) => void;

/** How far one blob of a pull or push is. Sizes are bytes, compressed ones where it is compressed. */
export interface BlobProgress {
  digest: Digest;
  total: number;
  /** Fetched or sent so far. */
  transferred: number;
  /** Of a pull: how many of them are unpacked. */
  unpacked: number;
  /**
   * `exists`: the store, or the registry, has it. `mounted`: the registry takes it over from another repository.
   * `unpacking`: all of it is here; unpacking begins before that.
   */
  state: 'exists' | 'mounted' | 'waiting' | 'downloading' | 'unpacking' | 'uploading' | 'done';
  /** 1 until something broke. */
  attempts: number;
  /** Milliseconds until the next attempt, and why: `Retry-After`, a broken connection. Only while it waits. */
  pause?: { inMs: number; reason: string };
}
export type PullProgressListener = (progress: BlobProgress) => void;
export type PushProgressListener = (progress: BlobProgress) => void;

export interface PullOptions {
  /** `os/architecture[/variant]`, `linux/arm64`. Default: this machine's, where there is more than one. */
  platform?: string;
  /** Stops; what was fetched stays for the next pull. Rejects with `signal.reason`. */
  signal?: AbortSignal;
  /** At most 10 reports a second for each layer's blob, and one for each change of `state` and each pause. */
  onProgress?: PullProgressListener;
  /** Names that the image gets, in place of the one it was pulled by. */
  names?: readonly string[];
  limits?: ImageLimits;
}

export interface PushOptions {
  /** Rejects with `signal.reason`. */
  signal?: AbortSignal;
  /** As for a pull. */
  onProgress?: PushProgressListener;
  /** Of layers. Default: the one in which the registry has a layer, else gzip. */
  compression?: 'gzip' | 'zstd';
}

/**
 * The images of a store, in Docker's own records under `<root>/image/<driver>`. After the store's `close()`:
 * ERR_STORE_CLOSED; what writes, on a read-only store: ERR_READ_ONLY.
 *
 * @example
 * ```ts
 * const [image] = await images.load({ path: 'debian.tar' });
 * if (image !== undefined) await images.tag(image.id, 'mine:1');
 * console.log(images.list().flatMap(({ names }) => names)); // debian:12, mine:1
 * ```
 */
export interface Images {
  /**
   * Every image of a `docker save` archive (any version's), an OCI archive or an OCI layout directory; archives may be
   * compressed. All or none: after an error the store is as it was. A name that another image had moves to the new one.
   * ERR_BAD_IMAGE, ERR_DIGEST_MISMATCH, ERR_LIMIT_EXCEEDED; ERR_INVALID_ARGUMENT where `platform` is not among its images.
   *
   * ```ts
   * const loaded = await images.load({ path: 'oci-layout' }, { limits: { maxLayers: 100 } });
   * console.log(loaded.length); // 1
   * ```
   */
  load(source: { path: string } | Readable, options?: LoadOptions): Promise<Image[]>;
  /**
   * A new image out of layers that are in the store, and a configuration. The layers live as long as the image does; the
   * caller's handle on the top layer can be released.
   * ERR_IMAGE_DOES_NOT_EXIST for a base that is not there, ERR_LAYER_DOES_NOT_EXIST for a layer, ERR_INVALID_ARGUMENT
   * for a layer that does not stand on the base and for options of a wrong shape.
   *
   * ```ts
   * await images.load({ path: 'debian.tar' });
   * const box = await store.createRWLayer('box', (await images.get('debian:12')).chainID);
   * const top = await store.commit(box);
   * const app = await images.create({
   *   base: 'debian:12',
   *   chainID: top.chainID,
   *   config: { Cmd: ['/usr/bin/app'], Env: ['PORT=80'] },
   *   names: ['app:1'],
   * });
   * await store.release(top);
   * console.log(app.config.config?.Cmd); // [ '/usr/bin/app' ]
   * ```
   */
  create(options: CreateImageOptions): Promise<Image>;
  /**
   * One image, or several in one archive or layout, whose layers are written once. By name: under that name; by id: without a
   * name. A target path appears only when it is complete.
   * ERR_IMAGE_DOES_NOT_EXIST, ERR_LAYER_CORRUPT, ERR_SYSTEM.
   *
   * ```ts
   * await images.load({ path: 'debian.tar' });
   * await images.save('debian:12', { path: 'saved.tar' }, { format: 'oci', compression: 'gzip' });
   * ```
   */
  save(nameOrID: string | readonly string[], target: { path: string } | Writable, options?: SaveOptions): Promise<void>;
  /**
   * An image from a registry, by a reference as Docker takes it: `debian:12` is `docker.io/library/debian:12`; what comes
   * by `@sha256:…` is checked against that. Layers that are there are not fetched; others are unpacked while they come. A
   * failed pull leaves no layer and no name, but the bytes that were fetched, which the next one goes on from and `gc`
   * removes. ERR_IMAGE_DOES_NOT_EXIST, ERR_UNAUTHORIZED, ERR_REGISTRY, ERR_DIGEST_MISMATCH, ERR_BAD_IMAGE,
   * ERR_LIMIT_EXCEEDED; ERR_NOT_SUPPORTED for layers outside of the registry; ERR_INVALID_ARGUMENT for a platform that
   * is not offered.
   *
   * ```ts no-run
   * const image = await images.pull('debian:12', { onProgress: ({ digest, state }) => console.log(digest, state) });
   * console.log(image.names, image.digests); // [ 'debian:12' ] [ 'debian@sha256:…' ]
   * ```
   */
  pull(reference: string, options?: PullOptions): Promise<Image>;
  /**
   * An image to a registry, as an OCI manifest, whose descriptor it gives. `reference`: by default the name. Blobs that the
   * registry has are not sent. ERR_IMAGE_DOES_NOT_EXIST, ERR_UNAUTHORIZED, ERR_REGISTRY, ERR_LAYER_CORRUPT.
   *
   * ```ts no-run
   * const { digest } = await images.push('app:1', 'localhost:5000/team/app:1');
   * console.log(digest);
   * ```
   */
  push(nameOrID: string, reference?: string, options?: PushOptions): Promise<Descriptor>;
  /**
   * What each layer adds, changes and removes, and which bytes are there in vain. Reads the record of every layer, not its files.
   * ERR_IMAGE_DOES_NOT_EXIST, ERR_LAYER_CORRUPT; `signal` stops it with its reason.
   *
   * ```ts
   * await images.load({ path: 'debian.tar' });
   * const { layers, efficiency, wasted } = await images.analyze('debian:12');
   * console.log(layers.length, efficiency, wasted[0]?.path);
   * ```
   */
  analyze(nameOrID: string, options?: { signal?: AbortSignal }): Promise<ImageAnalysis>;
  /** In order of first name, images without one last. */
  list(): readonly Image[];
  /**
   * By name (`debian` is `debian:latest`), id or unique beginning of an id of 8 digits or more; ERR_IMAGE_DOES_NOT_EXIST.
   *
   * ```ts
   * await images.load({ path: 'debian.tar' });
   * const image = await images.get('debian:12');
   * const box = await store.createRWLayer('box', image.chainID);
   * console.log(box.parent?.diffID === image.diffIDs.at(-1)); // true
   * ```
   */
  get(nameOrID: string): Promise<Image>;
  /** Gives an image one more name; a name that another image had moves. */
  tag(nameOrID: string, name: string): Promise<void>;
  /**
   * Takes a name away, and with the last one the image; by id all names and the image. Gives the layers removed with it, top first.
   * ERR_LAYER_IN_USE, and nothing happens, where the image would go although an RW layer was made from it.
   *
   * ```ts
   * await images.load({ path: 'debian.tar' });
   * const removed = await images.remove('debian:12');
   * console.log(removed.length); // 2 layers
   * ```
   */
  remove(nameOrID: string): Promise<LayerMetadata[]>;
  /** Reads the records again: what a Docker or another writer did to the root since. For `readOnly` stores. */
  refresh(): Promise<void>;
  /** What is wrong with records that could not be taken, one sentence each. */
  problems(): readonly string[];
}
