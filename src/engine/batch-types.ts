/** Steps that change the file system, as drivers and records give them to an engine. */

/**
 * One step of a batch; paths are absolute. A batch runs in order and stops at the first failure; what it made is then
 * taken back (mkdir, write, symlink, mknod), in reverse. Modes are exact, whatever the umask. An absent `uid` or `gid`
 * leaves that of the file as it is.
 */
export type BatchOp =
  /**
   * EEXIST where the name is taken. With `existOk` a directory, or a link to one, may be there: it is left as it is, mode
   * and owner too, and is not taken back.
   */
  | { op: 'mkdir'; path: string; mode: number; uid?: number; gid?: number; existOk?: boolean }
  /** Makes a new file: EEXIST where the name is taken, also by a link. `sync`: on the disk when the step is done. */
  | { op: 'write'; path: string; mode: number; data: string | Uint8Array; sync?: boolean; uid?: number; gid?: number }
  | { op: 'symlink'; target: string; path: string }
  | { op: 'rename'; path: string; dest: string; noReplace?: boolean }
  | { op: 'exchange'; path: string; dest: string }
  | { op: 'unlink'; path: string; missingOk?: boolean }
  | { op: 'rmdir'; path: string; missingOk?: boolean }
  | { op: 'chmod'; path: string; mode: number }
  /** A link's own owner, not its target's. */
  | { op: 'chown'; path: string; uid?: number; gid?: number }
  | { op: 'setxattr'; path: string; name: string; value: Uint8Array }
  | { op: 'removexattr'; path: string; name: string; missingOk?: boolean }
  | { op: 'mknod'; path: string; mode: number; major: number; minor: number }
  | { op: 'fsync'; path: string }; // of a file or a directory

/** Steps of a caller's own around somebody else's work; one batch with it where that is a batch itself. */
export interface StepsAround {
  /** Before the work makes or moves anything. Taken back where the work fails, but for renames. */
  readonly before: readonly BatchOp[];
  /** When all of the work is done. */
  readonly after: readonly BatchOp[];
}

export const NO_STEPS: StepsAround = { before: [], after: [] };
