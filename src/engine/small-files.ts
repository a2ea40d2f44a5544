/** What `Engine.readSmallFiles` found in one directory. */
export interface SmallFilesRow {
  /** The directory's own name; one that is no UTF-8 is left out. */
  directory: string;
  /**
   * In the order of `names`: the first `maxBytes` bytes as latin1 text; `undefined` where there is no such file; an
   * errno name where it cannot be read. Links are not followed (`{ failed: 'ELOOP' }`), anything but a regular file is
   * `{ failed: 'EINVAL' }`, and neither is opened.
   */
  files: (string | undefined | { failed: string })[];
}
