/** What the services share: shapes of messages, and how a method that returns a promise answers a call of gRPC. */
import type { LayerStoreError } from '../errors.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import type { Grpc } from './grpc.js';
import { statusOf } from './refusal.js';

export interface Mount {
  type: string;
  source: string;
  target: string;
  options: string[];
}

/** A method as a server takes it; `calls` counts and ends those that run. */
export type Handler = (
  calls: Calls,
) => Grpc.handleUnaryCall<unknown, unknown> | Grpc.handleServerStreamingCall<unknown, unknown>;
export type Handlers = Readonly<Record<string, Handler>>;

/** The calls that run: each has a signal that is aborted when its caller goes, or when the server stops waiting. */
export class Calls {
  readonly #running = new Map<AbortController, Promise<unknown>>();
  readonly #logger: LoggerLike;
  #stopped: LayerStoreError | undefined;

  constructor(logger: LoggerLike) {
    this.#logger = logger;
  }

  /** Runs one; what it fails with goes to `failed`, as gRPC says it. Never rejects. */
  async run(
    call: { on(event: 'cancelled', listener: () => void): unknown; getPath(): string },
    work: (signal: AbortSignal) => Promise<void>,
    failed: (status: { code: number; details: string }) => void,
  ): Promise<void> {
    const controller = new AbortController();
    const { signal } = controller;
    // gRPC says so of every call whose stream closes, of those that were answered too: there is nothing to abort then.
    call.on('cancelled', () => {
      if (this.#running.has(controller)) controller.abort();
    });
    if (this.#stopped !== undefined) controller.abort(this.#stopped);
    const running = work(signal);
    this.#running.set(controller, running);
    try {
      await running;
    } catch (error) {
      const status = statusOf(error, signal);
      this.#logger.debug({ method: call.getPath(), status: status.code, ...errorFields(error) }, 'a call is refused');
      failed(status);
    } finally {
      this.#running.delete(controller);
    }
  }

  /** Resolves when the calls that run now have ended. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#running.values());
  }

  /** Aborts the calls that run, and those that come. */
  stop(reason: LayerStoreError): void {
    this.#stopped = reason;
    for (const controller of this.#running.keys()) controller.abort(reason);
  }
}

export function unary<Request, Response>(
  method: (request: Request, signal: AbortSignal) => Promise<Response>,
): Handler {
  return (calls) => (call: Grpc.ServerUnaryCall<unknown, unknown>, answer: Grpc.sendUnaryData<unknown>) => {
    void calls.run(
      call,
      async (signal) => answer(null, await method(call.request as Request, signal)),
      (status) => answer(status),
    );
  };
}

export function streaming<Request, Message>(
  method: (request: Request, signal: AbortSignal) => AsyncIterable<Message>,
): Handler {
  return (calls) => (call: Grpc.ServerWritableStream<unknown, unknown>) => {
    void calls.run(
      call,
      async (signal) => {
        for await (const message of method(call.request as Request, signal)) {
          signal.throwIfAborted();
          if (!call.write(message)) await drained(call, signal);
        }
        call.end();
      },
      // This ends the stream with the status; destroying it would end it with none.
      (status) => call.emit('error', Object.assign(new Error(status.details), status)),
    );
  };
}

function drained(call: Grpc.ServerWritableStream<unknown, unknown>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const over = (): void => {
      signal.removeEventListener('abort', aborted);
      resolve();
    };
    const aborted = (): void => {
      call.off('drain', over);
      reject(signal.reason);
    };
    call.once('drain', over);
    signal.addEventListener('abort', aborted, { once: true });
  });
}
