/** Numbers, ids and tables as people read them. Pure. */

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** `1.5 GB`, decimal units as Docker prints them. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${UNITS[unit]}`;
}

/** `850 ms`, `3.2 s`, `2 min 05 s` */
export function formatDuration(milliseconds: number): string {
  if (milliseconds < 1000) return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${String(Math.floor(seconds % 60)).padStart(2, '0')} s`;
}

/** `1 s`, `2 min 05 s`, `3 h 20 min`: whole units, never zero. */
export function formatTimeLeft(milliseconds: number): string {
  const seconds = Math.max(1, Math.ceil(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const two = (value: number): string => String(value).padStart(2, '0');
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${two(Math.floor((seconds % 3600) / 60))} min`;
}

/** `123 MB/s` */
export function formatRate(bytes: number, milliseconds: number): string {
  return milliseconds <= 0 ? '' : `${formatBytes(Math.round((bytes / milliseconds) * 1000))}/s`;
}

/** The first 12 digits of a digest, as Docker shortens ids. */
export function shortID(digest: string): string {
  return digest.replace(/^sha256:/, '').slice(0, 12);
}

export interface Column {
  title: string;
  right?: boolean;
  /** Cut with an ellipsis where the table is too wide; the last such column gives way first. */
  flexible?: boolean;
}

/** A table of at most `width` columns; the last column is not padded. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[], width = 80): string {
  const widths = columns.map((column, i) => Math.max(column.title.length, ...rows.map((row) => (row[i] ?? '').length)));
  const gap = 2;
  let total = widths.reduce((sum, w) => sum + w, 0) + gap * (columns.length - 1);
  for (const [i, column] of [...columns.entries()].reverse()) {
    if (total <= width || column.flexible !== true) continue;
    const now = widths[i] ?? 0;
    const smaller = Math.max(column.title.length, 8, now - (total - width));
    total -= now - smaller;
    widths[i] = smaller;
  }
  const format = (cells: readonly string[]): string =>
    columns
      .map((column, i) => {
        const room = widths[i] ?? 0;
        const cell = cells[i] ?? '';
        const cut = cell.length > room ? `${cell.slice(0, room - 1)}…` : cell;
        return column.right === true ? cut.padStart(room) : cut.padEnd(room);
      })
      .join(' '.repeat(gap))
      .trimEnd();
  return [format(columns.map((column) => column.title)), ...rows.map(format)].join('\n');
}
