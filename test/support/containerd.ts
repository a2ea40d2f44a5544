/** A client of the snapshots service, and a server on a store for it. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { loadGrpc } from '../../src/containerd/grpc.js';
import { serveContainerd, type ContainerdServer, type ServeContainerdOptions } from '../../src/containerd/index.js';
import type { Store } from '../../src/index.js';

export interface WireMount {
  type: string;
  source: string;
  target: string;
  options: string[];
}

export interface WireInfo {
  name: string;
  parent: string;
  kind: number;
  created_at: { seconds: number; nanos: number };
  updated_at: { seconds: number; nanos: number };
  labels: Record<string, string>;
}

/** Codes of gRPC by name, for expectations. */
export const CODE = {
  INVALID_ARGUMENT: 3,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  FAILED_PRECONDITION: 9,
  UNIMPLEMENTED: 12,
  UNAVAILABLE: 14,
} as const;

/** For `assert.rejects`: a refusal with this code. */
export const refused =
  (code: keyof typeof CODE) =>
  (error: unknown): boolean =>
    error instanceof Error && 'code' in error && error.code === CODE[code];

type Method = (request: object, done: (error: Error | null, answer: unknown) => void) => void;

export class SnapshotsClient {
  readonly #call: (method: string, request: object) => Promise<unknown>;
  readonly #list: (request: object) => Promise<WireInfo[][]>;
  readonly close: () => void;

  private constructor(client: Record<string, unknown> & { close(): void }) {
    this.#call = (method, request) =>
      new Promise((done, failed) => {
        (client[method] as Method).call(client, request, (error, answer) =>
          error === null ? done(answer) : failed(error),
        );
      });
    this.#list = (request) =>
      new Promise((done, failed) => {
        const blocks: WireInfo[][] = [];
        const open = client['List'] as (request: object) => NodeJS.ReadableStream;
        open
          .call(client, request)
          .on('data', (block: unknown) => blocks.push((block as { info: WireInfo[] }).info))
          .on('end', () => done(blocks))
          .on('error', failed);
      });
    this.close = () => client.close();
  }

  static async connect(address: string): Promise<SnapshotsClient> {
    const { grpc, definition } = await loadGrpc();
    const name = 'containerd.services.snapshots.v1.Snapshots';
    const Client = grpc.makeClientConstructor(definition('snapshots.proto', name), name);
    const client = new Client(`unix:${address}`, grpc.credentials.createInsecure());
    return new SnapshotsClient(client);
  }

  async prepare(key: string, parent = '', labels: Record<string, string> = {}): Promise<WireMount[]> {
    return ((await this.#call('Prepare', { key, parent, labels })) as { mounts: WireMount[] }).mounts;
  }

  async view(key: string, parent = ''): Promise<WireMount[]> {
    return ((await this.#call('View', { key, parent })) as { mounts: WireMount[] }).mounts;
  }

  async mounts(key: string): Promise<WireMount[]> {
    return ((await this.#call('Mounts', { key })) as { mounts: WireMount[] }).mounts;
  }

  async commit(
    name: string,
    key: string,
    more: { labels?: Record<string, string>; parent?: string } = {},
  ): Promise<void> {
    await this.#call('Commit', { name, key, ...more });
  }

  async remove(key: string): Promise<void> {
    await this.#call('Remove', { key });
  }

  async stat(key: string): Promise<WireInfo> {
    return ((await this.#call('Stat', { key })) as { info: WireInfo }).info;
  }

  async update(name: string, labels: Record<string, string>, paths?: string[]): Promise<WireInfo> {
    const mask = paths === undefined ? {} : { update_mask: { paths } };
    return ((await this.#call('Update', { info: { name, labels }, ...mask })) as { info: WireInfo }).info;
  }

  async usage(key: string): Promise<{ size: number; inodes: number }> {
    return (await this.#call('Usage', { key })) as { size: number; inodes: number };
  }

  async cleanup(): Promise<void> {
    await this.#call('Cleanup', {});
  }

  /** The messages of the stream. */
  blocks(...filters: string[]): Promise<WireInfo[][]> {
    return this.#list({ filters });
  }

  async names(...filters: string[]): Promise<string[]> {
    return (await this.blocks(...filters)).flat().map(({ name }) => name);
  }
}

export interface Served {
  server: ContainerdServer;
  client: SnapshotsClient;
  /** Closes both; the test's end does it, too. */
  close: () => Promise<void>;
}

/** Serves a store on a socket in `directory`. */
export async function serve(
  t: Pick<TestContext, 'after'>,
  store: Store,
  directory: string,
  options: Partial<ServeContainerdOptions> = {},
): Promise<Served> {
  const server = await serveContainerd({ store, address: join(directory, 'sock'), ...options });
  const client = await SnapshotsClient.connect(server.address);
  const close = async (): Promise<void> => {
    client.close();
    await server.close();
  };
  t.after(close);
  return { server, client, close };
}

/** The directory that writes through mounts go to. */
export function writtenDirectory([mount]: readonly WireMount[]): string {
  const upper = mount?.options.find((option) => option.startsWith('upperdir='))?.slice('upperdir='.length);
  const directory = upper ?? (mount?.type === 'bind' ? mount.source : undefined);
  if (directory === undefined) throw new Error(`nothing to write to in ${JSON.stringify(mount)}`);
  return directory;
}
