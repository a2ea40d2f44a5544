/**
 * A daemon with an HTTP API on a Unix socket. SIGTERM stops it gracefully: running requests end, mounts stay, and the
 * next process takes them over (an RW layer that is still mounted comes back with mount count 1).
 *
 *   node --import tsx examples/daemon.ts ROOT SOCKET
 *   curl --unix-socket SOCKET -X PUT --data-binary @layer.tar http://x/layers
 *   curl --unix-socket SOCKET -X PUT http://x/boxes/one?parent=sha256:…
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { rm } from 'node:fs/promises';
import { LayerStoreError, openStore, parseChainID, type ErrorCode, type RWLayer, type Store } from 'layerstore';

const STATUS: Partial<Record<ErrorCode, number>> = {
  ERR_LAYER_DOES_NOT_EXIST: 404,
  ERR_IMAGE_DOES_NOT_EXIST: 404,
  ERR_MOUNT_DOES_NOT_EXIST: 404,
  ERR_MOUNT_NAME_CONFLICT: 409,
  ERR_ACTIVE_MOUNT: 409,
  ERR_SYSTEM: 500,
};

/** One handle a box: releasing the last one removes the box, so a request does not take and release its own. */
const boxes = new Map<string, RWLayer>();

function box(name: string): RWLayer {
  const rw = boxes.get(name);
  if (rw === undefined) throw new LayerStoreError('ERR_MOUNT_DOES_NOT_EXIST', `there is no box "${name}"`);
  return rw;
}

async function handle(store: Store, request: IncomingMessage): Promise<unknown> {
  const url = new URL(request.url ?? '/', 'http://localhost');
  const [kind, name = '', action] = url.pathname.split('/').filter(Boolean);
  const parentText = url.searchParams.get('parent');
  const parent = parentText === null ? undefined : parseChainID(parentText);
  switch (`${request.method} ${kind}${action === undefined ? '' : `/${action}`}`) {
    case 'PUT layers': {
      // A source that fails is destroyed; a request that is destroyed could not be answered.
      const layer = await store.register(request.iterator({ destroyOnReturn: false }), parent);
      await store.retain(layer.chainID, `daemon:${layer.chainID}`);
      await store.release(layer);
      return { chainID: layer.chainID, diffID: layer.diffID };
    }
    case 'GET boxes':
      return [...store.mounts().values()];
    case 'PUT boxes': {
      const rw = await store.createRWLayer(name, parent);
      boxes.set(name, rw);
      return { name: rw.name, path: await rw.mount() };
    }
    case 'GET boxes/changes':
      return box(name).changes();
    case 'DELETE boxes': {
      const rw = box(name);
      while (rw.mountCount > 0) await rw.unmount();
      const removed = await store.releaseRWLayer(rw);
      boxes.delete(name);
      return { removed };
    }
    default:
      throw new LayerStoreError('ERR_INVALID_ARGUMENT', `there is no ${request.method} ${url.pathname}`);
  }
}

async function answer(store: Store, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    const value = await handle(store, request);
    response.writeHead(200, { 'content-type': 'application/json' }).end(`${JSON.stringify(value)}\n`);
  } catch (error) {
    const code = error instanceof LayerStoreError ? error.code : 'ERR_SYSTEM';
    const message = error instanceof Error ? error.message : String(error);
    response.writeHead(STATUS[code] ?? 400, { 'content-type': 'application/json' });
    response.end(`${JSON.stringify({ error: { code, message } })}\n`);
  }
}

const [root, socket] = process.argv.slice(2);
if (root === undefined || socket === undefined) throw new Error('usage: daemon.ts ROOT SOCKET');
const store = await openStore({ root, logger: console });
for (const name of store.mounts().keys()) boxes.set(name, await store.getRWLayer(name));
await rm(socket, { force: true }); // of a process that was killed: the store's own lock says that none is running
const server = createServer((request, response) => void answer(store, request, response));
server.listen(socket, () => console.log(`listening on ${socket}, ${boxes.size} boxes from before`));
process.once('SIGTERM', () => {
  server.close(() => {
    void store.close().then(() => console.log('stopped; mounts stay for the next process'));
  });
  server.closeIdleConnections();
});
