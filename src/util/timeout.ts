/**
 * Waits for `work`, but no longer than `milliseconds`, nor beyond an abort of `signal`; the work runs on. Rejects as the
 * work does while it waits.
 */
export async function withTimeout(work: Promise<unknown>, milliseconds: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted === true) return;
  let timer: NodeJS.Timeout | undefined;
  let stop!: () => void;
  const over = new Promise<void>((resolve) => (stop = resolve));
  try {
    timer = setTimeout(stop, milliseconds);
    signal?.addEventListener('abort', stop, { once: true });
    await Promise.race([work, over]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  }
}
