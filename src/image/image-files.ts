/** ImageFiles: the files of an image, wherever they lie. Three kinds: an indexed tar file, a tar stream, a directory. */
import type { TarSource } from '../engine/engine.js';

export interface ImageFiles {
  /** What it is called in errors: the path, or `the stream`. */
  readonly title: string;
  /**
   * The first of `names` that is there, in their order; of a stream, the first that comes, so that nothing needs to be
   * kept that comes behind it.
   */
  firstOf(names: readonly string[]): Promise<string | undefined>;
  /** Whether a file is there; of a stream, whether it has come or comes next, so that nothing else has to be kept. */
  isNear(name: string): Promise<boolean>;
  /** A small file whole; undefined where it is missing. ERR_LIMIT_EXCEEDED over `maxBytes`. */
  read(name: string, maxBytes: number): Promise<Uint8Array | undefined>;
  /**
   * A blob as a source for a layer. Where that is known before it is read: ERR_BAD_IMAGE for a missing one and
   * ERR_DIGEST_MISMATCH for a size other than `size`; else its stream fails with these.
   */
  blob(name: string, size: number | undefined): Promise<TarSource>;
  /** From now on only these names are asked for, each as often as it stands here: what else a stream carries is passed over, not kept. */
  expectOnly(names: readonly string[]): void;
  /** Reads the rest, so that a truncated archive or a name that comes twice is noticed although nobody asked for it. */
  finish(): Promise<void>;
  close(): Promise<void>;
}
