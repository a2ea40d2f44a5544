/** One call of the addon: cancellation by an AbortSignal, progress, and errors of the package's own class. */
import type { ProgressListener } from '../engine.js';
import type { Binding, CancelToken, NativeProgress } from './binding.js';
import { nativeError } from './errors.js';

export interface RunOptions {
  /** What is tried, for messages: `read`. */
  action: string;
  signal?: AbortSignal | undefined;
  onProgress?: ProgressListener | undefined;
}

/** Time between two looks at the counters, so that a listener hears at most 10 a second. */
const PROGRESS_INTERVAL = 100;

/** Runs one cancellable call. Rejects with `signal.reason` where the signal stopped it, else with a LayerStoreError. */
export async function runNative<T>(
  binding: Binding,
  options: RunOptions,
  call: (token: CancelToken) => Promise<T>,
): Promise<T> {
  const { signal, action } = options;
  signal?.throwIfAborted();
  const token = new binding.CancelToken();
  const cancel = (): void => token.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  const progress = watchProgress(options.onProgress, () => token.progress(), cancel);
  try {
    const result = await call(token);
    progress.finish();
    return result;
  } catch (error) {
    progress.rethrow();
    throw nativeError(error, action, signal);
  } finally {
    progress.stop();
    signal?.removeEventListener('abort', cancel);
  }
}

/** For calls that nothing can stop. */
export async function plainNative<T>(action: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw nativeError(error, action);
  }
}

export interface ProgressWatch {
  /** The last report, with the final counters; throws what the listener threw. */
  finish(): void;
  /** Throws what the listener threw, where it is why the work was cancelled. */
  rethrow(): void;
  stop(): void;
}

/** Polls counters for a listener. A listener that throws cancels the work, whose error is then the listener's. */
export function watchProgress(
  listener: ProgressListener | undefined,
  read: () => NativeProgress,
  cancel: () => void,
  totalBytes?: number,
): ProgressWatch {
  if (listener === undefined) return { finish: () => {}, rethrow: () => {}, stop: () => {} };
  let thrown: { error: unknown } | undefined;
  let last = '';
  const report = (): void => {
    const counters = read();
    const key = `${counters.bytesRead} ${counters.bytesUnpacked} ${counters.entries}`;
    if (key === last || thrown !== undefined) return;
    last = key;
    try {
      listener(totalBytes === undefined ? counters : { ...counters, totalBytes });
    } catch (error) {
      thrown = { error };
      cancel();
    }
  };
  const rethrow = (): void => {
    if (thrown !== undefined) throw thrown.error;
  };
  const timer = setInterval(report, PROGRESS_INTERVAL);
  return {
    finish: () => {
      report();
      rethrow();
    },
    rethrow,
    stop: () => clearInterval(timer),
  };
}
