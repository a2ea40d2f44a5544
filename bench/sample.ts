/** What one measured run gives, whoever ran it. */
export interface Sample {
  /** Milliseconds. */
  wall: number;
  /** User and system time of the process (and of the children it waited for), milliseconds. */
  cpu: number;
  /** Peak resident memory above the process's idle level, bytes; of a command: its peak. */
  peak: number;
  /** 99th percentile of how late a 10 ms timer was, milliseconds; only where an event loop ran. */
  late?: number;
  /** Bytes that were worked on, for a rate. */
  bytes?: number;
  /** A number of the trial's own: operations a second, for example. */
  rate?: number;
}
