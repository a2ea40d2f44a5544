/** Milliseconds between two reports of progress. */
export const PROGRESS_INTERVAL = 100;

/** A function that says whether it is time again: true at most every `milliseconds`, and the first time. */
export function atMostEvery(milliseconds: number): () => boolean {
  let last = -Infinity;
  return () => {
    const now = performance.now();
    if (now - last < milliseconds) return false;
    last = now;
    return true;
  };
}
