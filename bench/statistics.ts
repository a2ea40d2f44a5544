/** Medians and percentiles of a few samples. Pure. */

export interface Summary {
  median: number;
  min: number;
  max: number;
  count: number;
}

export function percentile(samples: readonly number[], part: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  if (sorted.length === 0) return Number.NaN;
  const at = (sorted.length - 1) * part;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

export function summarise(samples: readonly number[]): Summary {
  return {
    median: percentile(samples, 0.5),
    min: Math.min(...samples),
    max: Math.max(...samples),
    count: samples.length,
  };
}

/** Median of the ratios a/b, pair by pair: what a drifting machine disturbs least. */
export function pairedRatio(a: readonly number[], b: readonly number[]): Summary {
  const pairs = Math.min(a.length, b.length);
  return summarise(Array.from({ length: pairs }, (_, i) => (a[i] ?? Number.NaN) / (b[i] ?? Number.NaN)));
}
