/** A gzip file as a stream of its content, which ends well only when length and CRC-32 of every member are right. */
import { createReadStream } from 'node:fs';
import { Readable, pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { systemError } from '../errors.js';
import { READ_REGULAR } from '../util/regular-file.js';
import { corrupt } from './record-text.js';

/** @param who names the layer, for the message of ERR_LAYER_CORRUPT */
export function readGzipFile(path: string, who: string): Readable {
  return Readable.from(content(path, who), { objectMode: false });
}

/** A consumer that leaves early ends the generator, which closes the file. */
async function* content(path: string, who: string): AsyncGenerator<Buffer, void> {
  // Numeric flags are what fs.open takes too; the types of streams know only the letters.
  const flags = READ_REGULAR as unknown as string;
  const gunzip = createGunzip();
  // The loop below hears of every failure through `gunzip`.
  pipeline(createReadStream(path, { flags }), gunzip, () => undefined);
  try {
    for await (const chunk of gunzip) yield chunk as Buffer;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code?.startsWith('Z_') === true) {
      throw corrupt(who, `"tar-split.json.gz" cannot be unpacked: ${code}`, path, error);
    }
    throw systemError(error, `read the tar-split record of ${who}`);
  } finally {
    gunzip.destroy();
  }
}
