/** The sentences of image/: constructors for its errors, and how a layer's error reads where an archive brought it. */
import { LayerStoreError, systemError } from '../errors.js';
import { quote } from '../util/quote.js';

export function badImage(message: string, cause?: unknown): LayerStoreError {
  return new LayerStoreError('ERR_BAD_IMAGE', message, { cause });
}

/** @param title the archive, a stream or a directory */
export function noImageArchive(title: string, cause?: unknown): LayerStoreError {
  return badImage(
    `${title} is not an image archive and holds no image: it has neither "index.json" nor "manifest.json" nor "repositories"; the tar of a root file system or of one layer is taken in with "register"`,
    cause,
  );
}

/** @param limit name of the field of ImageLimits that raises it */
export function overLimit(what: string, limit: string, value: number): LayerStoreError {
  return new LayerStoreError(
    'ERR_LIMIT_EXCEEDED',
    `${what} is over the limit of ${value}; raise "limits.${limit}" if you trust it`,
  );
}

export function noSuchImage(nameOrID: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_IMAGE_DOES_NOT_EXIST',
    `the image ${quote(nameOrID)} does not exist; load or pull it first, or look for it with list()`,
  );
}

export function noSuchLayer(chainID: string): LayerStoreError {
  return new LayerStoreError(
    'ERR_LAYER_DOES_NOT_EXIST',
    `its layer ${chainID} is not in the store; load the image again`,
  );
}

const LAYER_FAULTS = new Set(['ERR_BAD_TAR', 'ERR_BAD_COMPRESSION', 'ERR_UNSAFE_PATH']);

/** A layer's tar that cannot be unpacked makes the image a broken one; every other error stays what it is. */
export function layerError(error: unknown): unknown {
  if (!(error instanceof LayerStoreError) || !LAYER_FAULTS.has(error.code)) return error;
  return badImage(`a layer of the image cannot be unpacked: ${error.message}`, error);
}

/** Runs a file system call; its error becomes ERR_SYSTEM with `action` as what was tried. */
export async function attempt<T>(action: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw systemError(error, action);
  }
}

/** Passes on what a stream of ours over a file gives; its errors are told as those of {@link attempt}. */
export async function* withAction(action: string, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
  } catch (error) {
    throw systemError(error, action);
  }
}

/** Whether an error of node:fs has this errno name. */
export function hasErrno(error: unknown, name: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === name;
}
