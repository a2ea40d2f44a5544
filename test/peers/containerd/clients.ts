/** Clients of sockets: of our plugin, and of containerd as the kubelet is one. */
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { PROTO_DIRECTORY } from '../../../src/containerd/grpc.js';

const AS = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true } as const;
type Method = (...args: readonly unknown[]) => unknown;

async function withClient<T>(
  address: string,
  directory: string,
  file: string,
  service: string,
  work: (client: Record<string, Method>) => Promise<T>,
): Promise<T> {
  const definition = loadSync(file, { ...AS, includeDirs: [directory] })[service] as grpc.ServiceDefinition;
  const Client = grpc.makeGenericClientConstructor(definition, service);
  const client = new Client(`unix:${address}`, grpc.credentials.createInsecure());
  try {
    return await work(client as unknown as Record<string, Method>);
  } finally {
    client.close();
  }
}

export interface ListedSnapshot {
  readonly name: string;
  readonly parent: string;
  readonly kind: 'VIEW' | 'ACTIVE' | 'COMMITTED';
}

/** What the plugin says itself, in order of name. */
export async function listSnapshots(socket: string): Promise<ListedSnapshot[]> {
  return withClient(
    socket,
    PROTO_DIRECTORY,
    'snapshots.proto',
    'containerd.services.snapshots.v1.Snapshots',
    async (client) => {
      const found: ListedSnapshot[] = [];
      const stream = client['List']?.({ filters: [] }) as AsyncIterable<{ info: ListedSnapshot[] }>;
      for await (const { info } of stream) found.push(...info);
      return found.map(({ name, parent, kind }) => ({ name, parent, kind })).sort((a, b) => (a.name < b.name ? -1 : 1));
    },
  );
}

/** Pulls as the kubelet does; the image's id. */
export async function pullByKubelet(address: string, image: string): Promise<string> {
  return withClient(address, import.meta.dirname, 'cri.proto', 'runtime.v1.ImageService', (client) => {
    return new Promise((resolve, reject) => {
      client['PullImage']?.({ image: { image } }, (error: Error | null, answer: { image_ref: string }) => {
        if (error === null) resolve(answer.image_ref);
        else reject(error);
      });
    });
  });
}
