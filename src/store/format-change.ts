import type { Change } from '../engine/engine.js';

const LETTERS = { modify: 'C', add: 'A', delete: 'D' } as const;

/** One line for a change, as Docker's `diff` shows it: `C /etc`, `A /x`, `D /y`. */
export function formatChange(change: Change): string {
  return `${LETTERS[change.kind]} ${change.path}`;
}
