/** What engines say about records that they read in bulk. */

/** What `Engine.readRecords` found in one directory. */
export interface RecordRow {
  /** The directory's own name; one that is no UTF-8 is left out. */
  directory: string;
  /**
   * In the order of `names`: the first `maxBytes` bytes as latin1 text; `undefined` where there is no such file; an
   * errno name where it cannot be read. Links are not followed (`{ failed: 'ELOOP' }`), anything but a regular file is
   * `{ failed: 'EINVAL' }`, and neither is opened.
   */
  files: (string | undefined | { failed: string })[];
}

/** A directory with an entry for each layer. */
export interface DirectorySurvey {
  /** How many there are, of whatever kind. */
  entries: number;
  /** How many directories have a name that can be a layer's id. */
  layers: number;
  /** The names of the other directories. */
  others: string[];
}

/** Where every layer has a directory that is called by its cache id; one name there, `reserved`, is none of a layer. */
export interface LayerTrees {
  readonly directory: string;
  readonly reserved: string;
}

/** A file that keeps what was read of the records, until the machine restarts; `write`: it may be made and replaced. */
export interface RecordIndex {
  readonly path: string;
  readonly write: boolean;
}

/**
 * Layer records in the layerdb format that are beyond doubt: every file plainly there and well formed, the chain id that
 * of `diff` and `parent`. A row's parent is an earlier row. Packed, since there may be thousands.
 */
export interface LayerRecordTable {
  /** For each row its chain id and its diff id, 71 characters each, and its cache id. */
  text: string;
  /** Where in `text` each row ends. */
  ends: Uint32Array;
  sizes: Float64Array;
  /** The parent's row; -1: it has none. */
  parents: Int32Array;
  /** Texts of `descriptor.json` by row, not looked into. */
  descriptors: ReadonlyMap<number, string>;
  /** Names of all other entries, for a careful reader: nothing is said about them. */
  others: string[];
  /** Whether each row's cache id names one of the trees that were asked about. */
  housed: boolean;
}
