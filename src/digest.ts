/**
 * Content identifiers: pure functions over the textual form `sha256:<64 hex>`.
 * Chain ids are defined by the OCI image specification, "Layer ChainID"
 * (https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid).
 */
import { createHash } from 'node:crypto';
import { LayerStoreError } from './errors.js';
import { formatValue } from './util/quote.js';

declare const brand: unique symbol;
/** Marks a string type so that a diff id cannot be passed for a chain id. */
export interface Brand<Name extends string> {
  readonly [brand]: Name;
}

/** `sha256:` and 64 lower-case hex digits. */
export type Digest = `sha256:${string}`;
/** Identifies a layer together with all of its parents. */
export type ChainID = Digest & Brand<'ChainID'>;
/** SHA-256 of one layer's uncompressed tar. */
export type DiffID = Digest & Brand<'DiffID'>;

const DIGEST = /^sha256:[a-f0-9]{64}$/;
const SHA256_HEX = /^[a-f0-9]{64}$/;

/** Whether `text` is `sha256:` and 64 lower-case hex digits. */
export function isDigest(text: unknown): text is Digest {
  return typeof text === 'string' && DIGEST.test(text);
}

/** Whether `text` is the hexadecimal part of a digest: 64 lower-case digits. */
export function isSHA256Hex(text: string): boolean {
  return SHA256_HEX.test(text);
}

/** The digest of `bytes`. */
export function sha256(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/**
 * The text itself, as a digest. Throws `ERR_INVALID_DIGEST` unless it is `sha256:` and 64 lower-case hex digits.
 *
 * @example
 * ```ts
 * console.log(parseDigest(`sha256:${'0'.repeat(64)}`)); // sha256:000…
 * ```
 */
export function parseDigest(text: string): Digest {
  if (isDigest(text)) return text;
  throw new LayerStoreError(
    'ERR_INVALID_DIGEST',
    `${formatValue(text)} is not a digest: give "sha256:" and 64 lower-case hex digits`,
  );
}

/**
 * {@link parseDigest}, for a chain id. Throws `ERR_INVALID_DIGEST`.
 *
 * @example
 * ```ts
 * const written = String(layer.chainID); // as a program keeps it between two runs
 * const again = await store.get(parseChainID(written));
 * await store.release(again);
 * ```
 */
export function parseChainID(text: string): ChainID {
  return parseDigest(text) as ChainID;
}

/**
 * {@link parseDigest}, for a diff id. Throws `ERR_INVALID_DIGEST`.
 *
 * @example
 * ```ts
 * const { rootfs } = JSON.parse(`{"rootfs":{"diff_ids":["${DIGEST_SHA256_EMPTY_TAR}"]}}`) as { rootfs: { diff_ids: string[] } };
 * console.log(createChainID(rootfs.diff_ids.map(parseDiffID)));
 * ```
 */
export function parseDiffID(text: string): DiffID {
  return parseDigest(text) as DiffID;
}

/**
 * The chain id of layers applied in order, base first, on top of `parent`.
 * H(n) = SHA-256(H(n-1) + " " + DiffID(n)) over the textual digests; one id alone is its own chain id; none gives `parent`.
 * Pure: the ids are taken as they are, so parse text from outside first.
 * Source: OCI image specification, "Layer ChainID" (https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid).
 *
 * @example
 * ```ts
 * console.log(createChainID([base.diffID, layer.diffID]) === layer.chainID); // true
 * console.log(createChainID([layer.diffID], base.chainID) === layer.chainID); // true
 * ```
 */
export function createChainID(diffIDs: readonly DiffID[], parent?: ChainID): ChainID | undefined {
  let chain = parent;
  for (const diffID of diffIDs) {
    chain = chain === undefined ? (diffID as Digest as ChainID) : (sha256(`${chain} ${diffID}`) as ChainID);
  }
  return chain;
}

/**
 * Digest of 1,024 zero bytes: the tar that holds nothing, its two blocks of end alone.
 *
 * @example
 * ```ts
 * const { createHash } = await import('node:crypto');
 * const hex = createHash('sha256').update(Buffer.alloc(1024)).digest('hex');
 * console.log(DIGEST_SHA256_EMPTY_TAR === `sha256:${hex}`); // true
 * ```
 */
export const DIGEST_SHA256_EMPTY_TAR =
  'sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef' as DiffID;

/**
 * Whether `diffID` is {@link DIGEST_SHA256_EMPTY_TAR}, that of the tar that holds nothing. Other tars without entries (with
 * more zeros behind) have other diff ids.
 *
 * @example
 * ```ts
 * console.log(isEmptyLayer(emptyLayer.diffID), isEmptyLayer(layer.diffID)); // true false
 * ```
 */
export function isEmptyLayer(diffID: DiffID): boolean {
  return diffID === DIGEST_SHA256_EMPTY_TAR;
}
