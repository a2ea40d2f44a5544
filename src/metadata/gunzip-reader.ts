/** A gzip file as a stream of its content, which ends well only when length and CRC-32 of every member are right. */
import { constants, createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { PassThrough, pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { systemError } from '../errors.js';
import { corrupt } from './record-errors.js';

/** @param who names the layer, for the message of ERR_LAYER_CORRUPT */
export function readGzipFile(path: string, who: string): Readable {
  const file = createReadStream(path, { flags: (constants.O_RDONLY | constants.O_NOFOLLOW) as unknown as string });
  const gunzip = createGunzip();
  const output = new PassThrough({
    destroy(error, callback) {
      // A consumer that leaves early closes the file too.
      file.destroy();
      gunzip.destroy();
      callback(error);
    },
  });
  pipeline(file, gunzip, (error) => {
    if (error === null || error === undefined) return;
    const code = error.code ?? '';
    const damaged = code.startsWith('Z_');
    output.destroy(
      damaged ? corrupt(who, `"tar-split.json.gz" cannot be unpacked: ${code}`, path, error) : asError(error, who),
    );
  });
  gunzip.pipe(output);
  return output;
}

function asError(error: NodeJS.ErrnoException, who: string): Error {
  return systemError(error, `read the tar-split record of ${who}`) as Error;
}
