/**
 * The only file that loads gRPC: two packages that a program installs which serves containerd, and no other. The services
 * are described in `proto/`, which is published with the package.
 */
import { join } from 'node:path';
import type * as Grpc from '@grpc/grpc-js';
import { LayerStoreError } from '../errors.js';

export type { Grpc };

/** gRPC, and the definitions of a service that its server or client is made of. */
export interface LoadedGrpc {
  readonly grpc: typeof Grpc;
  /** `service` is a full name, `containerd.services.diff.v1.Diff`; `file` one of `proto/`. */
  readonly definition: (file: string, service: string) => Grpc.ServiceDefinition;
}

/** Where the descriptions lie: beside `src/` in a checkout, beside `dist/` in an installed package. */
export const PROTO_DIRECTORY = join(import.meta.dirname, '..', '..', 'proto');

/** Names as they are on the wire; numbers for 64 bits and enums; every member there. */
const AS = { keepCase: true, longs: Number, enums: Number, defaults: true, oneofs: true } as const;

/** ERR_NOT_SUPPORTED where one of the packages is not installed. */
export async function loadGrpc(): Promise<LoadedGrpc> {
  const grpc = await installed(() => import('@grpc/grpc-js'));
  const loader = await installed(() => import('@grpc/proto-loader'));
  return {
    grpc,
    definition(file, service) {
      const found = loader.loadSync(join(PROTO_DIRECTORY, file), { ...AS, includeDirs: [PROTO_DIRECTORY] })[service];
      if (found === undefined || 'format' in found) throw new Error(`${file} describes no service ${service}`);
      return found;
    },
  };
}

async function installed<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      'serving containerd takes the packages @grpc/grpc-js and @grpc/proto-loader, which cannot be loaded: install both beside layerstore',
      { cause },
    );
  }
}
