/**
 * CRC-64/ISO as Go's hash/crc64 computes it: reflected polynomial 0xD800000000000000, all ones in and out; the check of
 * "123456789" is b90956c775a41001. JavaScript has no fast 64-bit integers, so each value is two 32-bit halves; eight
 * bytes a step by eight tables.
 */

const POLYNOMIAL_HIGH = 0xd8000000;

/** Table `t`, byte `b`: low half at (t * 256 + b) * 2, high half behind it. */
const TABLES = buildTables();

function buildTables(): Uint32Array {
  const tables = new Uint32Array(8 * 256 * 2);
  for (let byte = 0; byte < 256; byte++) {
    let low = byte;
    let high = 0;
    for (let bit = 0; bit < 8; bit++) {
      const carry = low & 1;
      low = ((low >>> 1) | (high << 31)) >>> 0;
      high >>>= 1;
      if (carry !== 0) high = (high ^ POLYNOMIAL_HIGH) >>> 0;
    }
    tables[byte * 2] = low;
    tables[byte * 2 + 1] = high;
  }
  for (let table = 1; table < 8; table++) {
    for (let byte = 0; byte < 256; byte++) {
      const from = ((table - 1) * 256 + byte) * 2;
      const low = tables[from]!;
      const high = tables[from + 1]!;
      const first = (low & 255) * 2;
      const to = (table * 256 + byte) * 2;
      tables[to] = (((low >>> 8) | (high << 24)) ^ tables[first]!) >>> 0;
      tables[to + 1] = ((high >>> 8) ^ tables[first + 1]!) >>> 0;
    }
  }
  return tables;
}

/** A running checksum. */
export class Crc64 {
  // The complement of the checksum so far.
  #low = 0xffffffff | 0;
  #high = 0xffffffff | 0;

  update(bytes: Uint8Array): this {
    const table = TABLES;
    let low = this.#low;
    let high = this.#high;
    const { length } = bytes;
    let at = 0;
    for (const end = length - 7; at < end; at += 8) {
      // Offsets are those of the table of the byte's distance from the end of the step, in 32-bit words.
      const a = ((low ^ bytes[at]!) & 255) * 2 + 3584;
      const b = (((low >>> 8) ^ bytes[at + 1]!) & 255) * 2 + 3072;
      const c = (((low >>> 16) ^ bytes[at + 2]!) & 255) * 2 + 2560;
      const d = ((low >>> 24) ^ bytes[at + 3]!) * 2 + 2048;
      const e = ((high ^ bytes[at + 4]!) & 255) * 2 + 1536;
      const f = (((high >>> 8) ^ bytes[at + 5]!) & 255) * 2 + 1024;
      const g = (((high >>> 16) ^ bytes[at + 6]!) & 255) * 2 + 512;
      const h = ((high >>> 24) ^ bytes[at + 7]!) * 2;
      low = table[a]! ^ table[b]! ^ table[c]! ^ table[d]! ^ table[e]! ^ table[f]! ^ table[g]! ^ table[h]!;
      high =
        table[a + 1]! ^
        table[b + 1]! ^
        table[c + 1]! ^
        table[d + 1]! ^
        table[e + 1]! ^
        table[f + 1]! ^
        table[g + 1]! ^
        table[h + 1]!;
    }
    for (; at < length; at++) {
      const index = ((low ^ bytes[at]!) & 255) * 2;
      low = ((low >>> 8) | (high << 24)) ^ table[index]!;
      high = (high >>> 8) ^ table[index + 1]!;
    }
    this.#low = low;
    this.#high = high;
    return this;
  }

  /** Eight bytes, big-endian, as tar-split keeps it. */
  digest(): Buffer {
    const bytes = Buffer.allocUnsafe(8);
    bytes.writeUInt32BE(~this.#high >>> 0, 0);
    bytes.writeUInt32BE(~this.#low >>> 0, 4);
    return bytes;
  }
}

/** Checksum of bytes that are at hand. */
export function crc64(bytes: Uint8Array): Buffer {
  return new Crc64().update(bytes).digest();
}
