/** The small files of a record, as text. */
import { NotRegularError, readRegularFileSync } from '../util/regular-file.js';
import { InvalidRecordError } from './record-text.js';

/** More than any id or digest needs with blanks around it. */
export const SMALL_LIMIT = 512;
/** Annotations may be long; beyond this it is no descriptor. */
export const DESCRIPTOR_LIMIT = 1 << 20;

/**
 * The file's content, or `undefined` where there is none; bytes that are no UTF-8 become replacement characters, which no
 * reader of records accepts. `InvalidRecordError` for what is no regular file or holds more than `limit` bytes; any other trouble is
 * Node's own error.
 */
export function readRecordFile(path: string, limit = SMALL_LIMIT): string | undefined {
  try {
    return readRegularFileSync(path, limit)?.toString('utf8');
  } catch (error) {
    if (error instanceof NotRegularError) throw new InvalidRecordError(error.message);
    throw error;
  }
}
