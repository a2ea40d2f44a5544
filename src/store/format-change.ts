import type { Change } from '../engine/engine.js';

const LETTERS = { modify: 'C', add: 'A', delete: 'D' } as const;

/**
 * One line for a change, without an end of line, as `docker diff` shows it: `C /etc`, `A /x`, `D /y`.
 * The path is written as it is; one that holds a line feed takes two lines.
 *
 * @example
 * ```ts
 * console.log(formatChange({ path: '/etc/motd', kind: 'add' })); // A /etc/motd
 * ```
 */
export function formatChange(change: Change): string {
  return `${LETTERS[change.kind]} ${change.path}`;
}
