/** Milliseconds between two reports of progress. */
export const PROGRESS_INTERVAL = 100;

/** Returns a function that is true on its first call, and then at most once every `milliseconds`. */
export function atMostEvery(milliseconds: number): () => boolean {
  let last = -Infinity;
  return () => {
    const now = performance.now();
    if (now - last < milliseconds) return false;
    last = now;
    return true;
  };
}
