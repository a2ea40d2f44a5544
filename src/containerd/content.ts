/**
 * Blobs of containerd's content store: the file where it lies below containerd's root, else what containerd's content
 * service sends. A blob is named by its digest alone, and whoever reads one checks it.
 */
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Digest, parseDigest } from '../digest.js';
import type { TarSource } from '../engine/engine.js';
import { LayerStoreError } from '../errors.js';
import { quote } from '../util/quote.js';
import type { Grpc, LoadedGrpc } from './grpc.js';
import { Refusal, STATUS } from './refusal.js';

const SERVICE = { file: 'content.proto', name: 'containerd.services.content.v1.Content' };

export interface BlobRequest {
  readonly digest: Digest;
  /** containerd's namespace in which the blob can be read. Files are the same in all of them. */
  readonly namespace: string;
  readonly signal: AbortSignal;
}

/** Where blobs come from. Without a root nor an address there are none. */
export interface ContentOptions {
  /** containerd's root directory. */
  readonly root: string | undefined;
  /** containerd's own socket. */
  readonly address: string | undefined;
}

export class Content {
  readonly #root: string | undefined;
  readonly #service: ContentService | undefined;

  constructor(options: ContentOptions, loaded: LoadedGrpc) {
    this.#root = options.root;
    this.#service = options.address === undefined ? undefined : new ContentService(options.address, loaded);
  }

  /** Whether there is a place to look at. */
  get available(): boolean {
    return this.#root !== undefined || this.#service !== undefined;
  }

  /** NOT_FOUND where nobody has it. */
  async open(request: BlobRequest): Promise<TarSource> {
    const path = this.#root === undefined ? undefined : blobPath(this.#root, request.digest);
    if (path !== undefined && (await isReadable(path))) return { path };
    if (this.#service !== undefined) return this.#service.read(request);
    throw new Refusal(
      'NOT_FOUND',
      `there is no blob that can be read at ${quote(path ?? '')}: check containerd's root, or name its socket so that blobs are read through it`,
    );
  }

  close(): void {
    this.#service?.close();
  }
}

/** Where containerd's own content store has it. */
function blobPath(root: string, digest: Digest): string {
  const [algorithm = '', digits = ''] = parseDigest(digest).split(':');
  return join(root, 'io.containerd.content.v1.content', 'blobs', algorithm, digits);
}

async function isReadable(path: string): Promise<boolean> {
  try {
    if (!(await stat(path)).isFile()) return false;
    await access(path, constants.R_OK);
    return true;
  } catch {
    return false; // not there, or not for us: the service may have it
  }
}

interface ReadResponse {
  offset: number;
  data: Uint8Array;
}

type Read = (
  request: { digest: string; offset: number; size: number },
  metadata: Grpc.Metadata,
) => Grpc.ClientReadableStream<ReadResponse>;

/** A client of containerd's content service. It connects when it is first asked, and again after containerd's restarts. */
class ContentService {
  readonly #loaded: LoadedGrpc;
  readonly #address: string;
  #client: Grpc.Client | undefined;

  constructor(address: string, loaded: LoadedGrpc) {
    this.#address = address;
    this.#loaded = loaded;
  }

  async *read({ digest, namespace, signal }: BlobRequest): AsyncGenerator<Uint8Array> {
    signal.throwIfAborted();
    const { grpc } = this.#loaded;
    const metadata = new grpc.Metadata({ waitForReady: true });
    metadata.set('containerd-namespace', namespace);
    const client = this.#connect() as unknown as { Read: Read };
    const stream = client.Read({ digest, offset: 0, size: 0 }, metadata);
    const cancel = (): void => stream.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      let at = 0;
      for await (const { offset, data } of stream as AsyncIterable<ReadResponse>) {
        if (offset !== at) throw new Refusal('DATA_LOSS', `the blob ${digest} comes with a gap at byte ${at}`);
        at += data.length;
        yield data;
      }
    } catch (error) {
      signal.throwIfAborted();
      throw refusalOf(error, digest);
    } finally {
      signal.removeEventListener('abort', cancel);
      stream.cancel();
    }
  }

  close(): void {
    this.#client?.close();
    this.#client = undefined;
  }

  #connect(): Grpc.Client {
    if (this.#client !== undefined) return this.#client;
    const { grpc, definition } = this.#loaded;
    const Client = grpc.makeGenericClientConstructor(definition(SERVICE.file, SERVICE.name), 'Content');
    this.#client = new Client(`unix:${this.#address}`, grpc.credentials.createInsecure());
    return this.#client;
  }
}

function refusalOf(error: unknown, digest: Digest): unknown {
  if (!(error instanceof Error) || !('code' in error) || error instanceof LayerStoreError) return error;
  const status = error.code === STATUS.NOT_FOUND ? 'NOT_FOUND' : 'UNAVAILABLE';
  return new Refusal(status, `containerd does not send the blob ${digest}: ${error.message}`);
}
