/** `serveContainerd`: the services on a Unix socket that nobody but the server's own user can open. */
import { chmod, lstat, mkdtemp, rename, rm, rmdir, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { invalidArgument, LayerStoreError, systemError } from '../errors.js';
import type { Logger, Store } from '../store/types.js';
import { treesOf } from '../store/trees.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import { formatValue, quote } from '../util/quote.js';
import { Rollback } from '../util/rollback.js';
import { withTimeout } from '../util/timeout.js';
import { Content, type ContentOptions } from './content.js';
import { DIFF_SERVICE, diffService } from './diff-service.js';
import { type Grpc, loadGrpc } from './grpc.js';
import { Snapshots } from './snapshots.js';
import { SNAPSHOTS_SERVICE, snapshotsService } from './snapshots-service.js';
import { Calls, type Handlers } from './wire.js';

/** What {@link serveContainerd} takes. */
export interface ServeContainerdOptions {
  /** Open for writing. It stays open when the server closes. */
  store: Store;
  /** Absolute path of the socket. */
  address: string;
  /**
   * containerd's root, for reading blobs where they lie. Without it and {@link contentAddress} nothing is unpacked here, and
   * containerd does that itself.
   */
  contentRoot?: string;
  /** containerd's own socket: blobs that cannot be read below {@link contentRoot} are read through it. */
  contentAddress?: string;
  /**
   * Default true: a layer that the store has already is neither fetched nor unpacked again. containerd then lacks its blob,
   * so choose false where images are pushed or exported from containerd.
   */
  reuseLayers?: boolean;
  /** Aborted: the server closes. */
  signal?: AbortSignal;
  /** Silent by default. */
  logger?: Logger;
}

/** A running server. */
export interface ContainerdServer {
  /** Absolute path of the socket. */
  readonly address: string;
  /** Takes no more calls, ends those that run, and removes the socket. A second call waits for the first. */
  close(): Promise<void>;
}

/** Bytes of a socket's path that the kernel takes. */
const MAX_ADDRESS = 107;
/** Milliseconds that running calls get to end by themselves. */
const PATIENCE = 5_000;

/** Stores that are served: their records have one writer. */
const served = new WeakSet<Store>();

/**
 * Serves containerd's snapshots and diff services: the store becomes a proxy snapshotter and a proxy differ. Resolves when
 * the socket takes connections.
 *
 * `ERR_NOT_SUPPORTED`: gRPC is not installed. `ERR_INVALID_ARGUMENT`: an option is wrong, the store is served already, or
 * another program listens on the socket. `ERR_READ_ONLY`, `ERR_STORE_CLOSED`: of the store. `ERR_LAYER_CORRUPT`: the records
 * of snapshots cannot be used. `ERR_SYSTEM`: the socket cannot be made.
 *
 * ```ts no-run
 * import { openStore } from 'layerstore';
 * import { serveContainerd } from 'layerstore/containerd';
 *
 * await using store = await openStore({ root: '/var/lib/layerstore' });
 * const server = await serveContainerd({ store, address: '/run/layerstore/containerd.sock' });
 * process.once('SIGTERM', () => void server.close());
 * ```
 */
export async function serveContainerd(options: ServeContainerdOptions): Promise<ContainerdServer> {
  const { store, address, content: places, reuseLayers, signal } = check(options);
  signal?.throwIfAborted();
  const trees = treesOf(store);
  const logger: LoggerLike = options.logger ?? trees.logger;
  if (served.has(store)) {
    throw invalidArgument('the store is served already: close the other server first');
  }
  served.add(store);
  const back = new Rollback((step, error) =>
    logger.warn({ step, ...errorFields(error) }, 'a part of the server cannot be closed'),
  );
  back.push('give the store free', () => served.delete(store));
  try {
    const loaded = await loadGrpc();
    const { grpc, definition } = loaded;
    const snapshots = await Snapshots.open({ store, reuseLayers });
    back.push('close the records', () => snapshots.close());
    const content = new Content(places, loaded);
    back.push('leave containerd', () => content.close());
    const calls = new Calls(logger);
    // Without statistics that nobody reads: they cost as much as a short call does.
    const server = new grpc.Server({ 'grpc.enable_channelz': 0 });
    add(server, definition(SNAPSHOTS_SERVICE.file, SNAPSHOTS_SERVICE.name), snapshotsService(snapshots), calls);
    add(server, definition(DIFF_SERVICE.file, DIFF_SERVICE.name), diffService(snapshots, content, logger), calls);
    back.push('end the calls', async () => {
      await end(server, calls);
    });
    await listen(grpc, server, address, back);
    logger.info({ address, snapshots: snapshots.count }, 'serving containerd');
    return serverOf(address, back, (end) => trees.atClose(end), signal);
  } catch (error) {
    await back.run();
    throw error;
  }
}

function serverOf(
  address: string,
  back: Rollback,
  atClose: (end: () => Promise<void>) => () => void,
  signal: AbortSignal | undefined,
): ContainerdServer {
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closing ??= back.run();
    return closing;
  };
  const forget = atClose(close);
  back.push('leave the store', forget);
  if (signal !== undefined) {
    const aborted = (): void => void close();
    signal.addEventListener('abort', aborted, { once: true });
    back.push('forget the signal', () => signal.removeEventListener('abort', aborted));
    if (signal.aborted) aborted();
  }
  return { address, close };
}

function check(options: ServeContainerdOptions): {
  store: Store;
  address: string;
  content: ContentOptions;
  reuseLayers: boolean;
  signal: AbortSignal | undefined;
} {
  const { store, address, contentRoot, contentAddress, reuseLayers = true, signal } = options;
  if (typeof address !== 'string' || !isAbsolute(address)) {
    throw invalidArgument(`"address" must be the absolute path of a socket, not ${formatValue(address)}`);
  }
  const path = resolve(address);
  if (Buffer.byteLength(path) > MAX_ADDRESS) {
    throw invalidArgument(`the address ${quote(path)} is too long: a socket's path has at most ${MAX_ADDRESS} bytes`);
  }
  for (const [name, place] of Object.entries({ contentRoot, contentAddress })) {
    if (place !== undefined && (typeof place !== 'string' || !isAbsolute(place))) {
      throw invalidArgument(`"${name}" must be an absolute path, not ${formatValue(place)}`);
    }
  }
  if (typeof reuseLayers !== 'boolean')
    throw invalidArgument(`"reuseLayers" must be a boolean, not ${formatValue(reuseLayers)}`);
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw invalidArgument('"signal" must be an AbortSignal');
  return { store, address: path, content: { root: contentRoot, address: contentAddress }, reuseLayers, signal };
}

function add(server: Grpc.Server, definition: Grpc.ServiceDefinition, handlers: Handlers, calls: Calls): void {
  const implementation: Record<string, Grpc.UntypedHandleCall> = {};
  for (const name of Object.keys(definition)) {
    const handler = handlers[name];
    if (handler === undefined) throw new Error(`no handler for the method ${name}`);
    implementation[name] = handler(calls) as Grpc.UntypedHandleCall;
  }
  server.addService(definition, implementation);
}

/** No new calls; those that run get some time, then their signals are aborted. */
async function end(server: Grpc.Server, calls: Calls): Promise<void> {
  const closed = new Promise<void>((done) => server.tryShutdown(() => done()));
  await withTimeout(calls.idle(), PATIENCE);
  calls.stop(new LayerStoreError('ERR_STORE_CLOSED', 'the server is closing'));
  await calls.idle();
  server.forceShutdown();
  await closed;
}

/**
 * The socket is made in a directory that nobody else can enter, and renamed to its place when it has its mode: at no time
 * can another user connect. A socket there on which nobody answers is replaced.
 */
async function listen(grpc: typeof Grpc, server: Grpc.Server, address: string, back: Rollback): Promise<void> {
  await refuseTaken(address);
  let scratch: string;
  try {
    scratch = await mkdtemp(join(dirname(address), '.ls-'));
  } catch (error) {
    throw systemError(error, `make a socket in "${dirname(address)}"`, 'make the directory, and run as its owner');
  }
  const made = join(scratch, 's');
  try {
    // Beside a short name the one in the directory is longer.
    if (Buffer.byteLength(made) > MAX_ADDRESS) {
      throw invalidArgument(`the address ${quote(address)} is too long by a few bytes: choose a shorter directory`);
    }
    await bind(grpc, server, made);
    await chmod(made, 0o600);
    const { ino } = await lstat(made);
    await rename(made, address);
    back.push('remove the socket', () => removeSocket(address, ino));
  } catch (error) {
    throw systemError(error, `make the socket "${address}"`);
  } finally {
    await rm(made, { force: true });
    await rmdir(scratch);
  }
}

function bind(grpc: typeof Grpc, server: Grpc.Server, path: string): Promise<void> {
  return new Promise((done, failed) => {
    server.bindAsync(`unix:${path}`, grpc.ServerCredentials.createInsecure(), (error) => {
      if (error === null) done();
      else failed(new LayerStoreError('ERR_SYSTEM', `cannot listen on "${path}": ${error.message}`, { cause: error }));
    });
  });
}

async function refuseTaken(address: string): Promise<void> {
  const found = await lstat(address).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw systemError(error, 'look for a socket');
  });
  if (found === undefined) return;
  if (!found.isSocket())
    throw invalidArgument(
      `cannot make a socket at "${address}": a file is there already; remove it or choose another path`,
    );
  if (await answers(address)) {
    throw invalidArgument(
      `the socket "${address}" is in use: stop the program that listens on it, or choose another path`,
    );
  }
}

function answers(address: string): Promise<boolean> {
  return new Promise((done) => {
    const probe = connect(address);
    probe.once('connect', () => {
      probe.destroy();
      done(true);
    });
    // Any other failure, as of a server that is too busy to accept, does not say that the socket is left over.
    probe.once('error', ({ code }: NodeJS.ErrnoException) => done(code !== 'ECONNREFUSED' && code !== 'ENOENT'));
  });
}

/** Unless another server has put its own there. */
async function removeSocket(address: string, ino: number): Promise<void> {
  const found = await lstat(address).catch(() => undefined); // gone, or out of reach: nothing of ours to remove
  if (found?.ino === ino) await unlink(address);
}
