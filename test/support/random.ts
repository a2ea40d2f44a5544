/** Small seeded generator for tests: the same seed gives the same run. Not for anything secret. */

/** Numbers in [0, 1) (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** A whole number in [0, below). */
export function pick(random: () => number, below: number): number {
  return Math.floor(random() * below);
}

/** The seed of this run: from `LAYERSTORE_SEED` where set, else new; printed by whoever uses it. */
export function runSeed(): number {
  const given = process.env['LAYERSTORE_SEED'];
  return given === undefined ? (Date.now() ^ process.pid) >>> 0 : Number(given) >>> 0;
}
