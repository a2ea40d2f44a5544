/** Where a command's input comes from. */
import type { TarSource } from '../index.js';

/** A path, or standard input for `-`. */
export function inputSource(path: string): TarSource & ({ path: string } | NodeJS.ReadStream) {
  return path === '-' ? process.stdin : { path };
}
