/**
 * Progress for people, on standard error. Where that is a terminal: a line a blob or layer with its state, a bar, sizes, rate
 * and time left, and a line for the sum; in a narrow terminal the sum alone. Elsewhere: a plain line for each blob or
 * layer that has ended. With `--quiet` or `--json` nothing.
 */
import type { BlobProgress, ImageProgressListener, ProgressListener, SaveProgressListener } from '../index.js';
import { formatBytes, formatRate, formatTimeLeft, shortID } from './format.js';
import type { Terminal } from './terminal.js';

/** Where one blob or layer is. Sizes are bytes. */
export interface Transfer {
  /** What stands first on its line: a short id, or a name. */
  readonly label: string;
  /** What happens to it, in the words of `docker pull`: `Downloading`, `Pull complete`. */
  readonly state: string;
  /** Nothing more happens to it. */
  readonly ended: boolean;
  readonly done: number;
  readonly total: number | undefined;
}

export interface TransferView extends Transfer {
  /** Bytes a second; 0: not known yet. */
  readonly rate: number;
}

/** Milliseconds between two drawings. */
const INTERVAL = 100;
/** Milliseconds that a rate is measured over. */
const RATE_WINDOW = 3000;
/** Columns below which only the sum is shown. */
const NARROW = 60;
const BAR = { least: 8, most: 30 };

/**
 * The lines to show: one a transfer and one for the sum, none longer than `columns - 1`, at most `rows - 1`. `expected`: how
 * many transfers there will be. Pure.
 */
export function renderProgress(
  title: string,
  transfers: readonly TransferView[],
  expected: number,
  { columns, rows }: { columns: number; rows: number },
): string[] {
  const [only] = transfers;
  const width = columns - 1;
  if (only === undefined) return [];
  if (transfers.length === 1 && expected <= 1) return [transferLine(only, only.state.length, width)];
  const sum = sumLine(title, transfers, expected, width);
  if (columns < NARROW) return [sum];
  // Where not all have room, those that wait or have ended are in the sum alone.
  const room = Math.max(1, rows - 2);
  const moving = transfers.filter(({ ended, done }) => !ended && done > 0);
  const shown = transfers.length <= room ? transfers : moving.slice(0, room);
  const stateWidth = Math.max(...shown.map(({ state }) => state.length));
  return [...shown.map((each) => transferLine(each, stateWidth, width)), sum];
}

function transferLine(transfer: TransferView, stateWidth: number, width: number): string {
  const { label, state, ended, done } = transfer;
  const head = `${label}  ${state.padEnd(stateWidth)}`;
  const bare = `${label}  ${state}`;
  if (ended) return fitting(width, done > 0 ? `${head}  ${formatBytes(done)}` : bare, bare, state);
  if (done === 0) return fitting(width, bare, state);
  return withNumbers(head, transfer, width);
}

function sumLine(title: string, transfers: readonly TransferView[], expected: number, width: number): string {
  const ended = transfers.filter((each) => each.ended).length;
  const sum = (value: (each: TransferView) => number): number => transfers.reduce((all, each) => all + value(each), 0);
  // What waits may not know its size yet: then there is no total.
  const count = Math.max(expected, transfers.length);
  const unknown = count > transfers.length || transfers.some((each) => !each.ended && each.total === undefined);
  const total = unknown ? undefined : sum((each) => each.total ?? each.done);
  const all = { done: sum(({ done }) => done), total, rate: sum((each) => (each.ended ? 0 : each.rate)) };
  return withNumbers(`${title}: ${ended} of ${count}`, all, width);
}

/** `head`, and as much of bar, sizes, rate and time left as there is room for. */
function withNumbers(
  head: string,
  { done, total, rate }: Pick<TransferView, 'done' | 'total' | 'rate'>,
  width: number,
): string {
  const speed = rate > 0 ? formatRate(rate, 1000) : '';
  if (total === undefined || total === 0) {
    const size = formatBytes(done);
    return fitting(width, `${head}  ${size}  ${speed}`.trimEnd(), `${head}  ${size}`, head);
  }
  const part = Math.min(1, done / total);
  const percent = `${String(Math.floor(part * 100)).padStart(3)} %`;
  const sizes = `${formatBytes(done)} of ${formatBytes(total)}`.padStart(17);
  const left = rate > 0 && part < 1 ? `  ${formatTimeLeft(((total - done) / rate) * 1000)} left` : '';
  const numbers = `${percent}  ${sizes}  ${speed.padStart(9)}${left}`.trimEnd();
  // The time left comes and goes; the bar keeps its length.
  const room = Math.min(BAR.most, width - head.length - 4 - `${percent}  ${sizes}  `.length - 27);
  const filled = Math.round(part * room);
  return fitting(
    width,
    ...(room >= BAR.least ? [`${head}  ${'█'.repeat(filled)}${'░'.repeat(room - filled)}  ${numbers}`] : []),
    `${head}  ${numbers}`,
    `${head}  ${percent}  ${sizes.trim()}`,
    `${head}  ${percent}`,
    head,
  );
}

/** The first of the texts that has room; the last one is cut. */
function fitting(width: number, ...texts: readonly string[]): string {
  return texts.find((text) => text.length <= width) ?? (texts.at(-1) ?? '').slice(0, width);
}

/** How fast a number of bytes has grown lately. */
class Rate {
  #samples: { time: number; bytes: number }[] = [];

  add(time: number, bytes: number): void {
    this.#samples.push({ time, bytes });
    while (this.#samples.length > 2 && time - (this.#samples[1]?.time ?? time) > RATE_WINDOW) this.#samples.shift();
  }

  get perSecond(): number {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.time - first.time < 2 * INTERVAL) return 0;
    return Math.max(0, ((last.bytes - first.bytes) / (last.time - first.time)) * 1000);
  }
}

/** What `load`, `save`, `pull` and `push`, `register` and `commit` show. `end` leaves the last picture where it is. */
export class ProgressDisplay {
  readonly #terminal: Terminal;
  readonly #title: string;
  readonly #quiet: boolean;
  readonly #now: () => number;
  readonly #transfers = new Map<string, { transfer: Transfer; rate: Rate }>();
  /** Group -> how many transfers it will have. */
  readonly #expected = new Map<string, number>();
  #drawn = -Infinity;
  #timer: NodeJS.Timeout | undefined;

  constructor(terminal: Terminal, title: string, quiet = false, now = (): number => performance.now()) {
    this.#terminal = terminal;
    this.#title = title;
    this.#quiet = quiet || terminal.json;
    this.#now = now;
  }

  /** `key` tells transfers apart; they are shown in the order in which they were first heard of. */
  update(key: string, transfer: Transfer): void {
    if (this.#quiet) return;
    const known = this.#transfers.get(key);
    const rate = known?.rate ?? new Rate();
    rate.add(this.#now(), transfer.done);
    this.#transfers.set(key, { transfer, rate });
    if (this.#terminal.interactive) this.#schedule();
    else if (transfer.ended && known?.transfer.ended !== true) this.#terminal.note(plainLine(transfer));
  }

  /** Says how many transfers a group (an image) will have, before all of them are heard of. */
  expect(group: string, count: number): void {
    this.#expected.set(group, count);
  }

  /** Draws once more and goes to the next line. */
  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#quiet || !this.#terminal.interactive) return;
    this.#draw();
    this.#terminal.keepStatus();
  }

  #schedule(): void {
    const wait = this.#drawn + INTERVAL - this.#now();
    if (wait <= 0) this.#draw();
    else this.#timer ??= setTimeout(() => this.#draw(), wait).unref();
  }

  #draw(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#drawn = this.#now();
    const views = [...this.#transfers.values()].map(({ transfer, rate }) => ({ ...transfer, rate: rate.perSecond }));
    const expected = [...this.#expected.values()].reduce((sum, count) => sum + count, 0);
    this.#terminal.status(renderProgress(this.#title, views, expected, this.#terminal));
  }
}

function plainLine({ label, state, done }: Transfer): string {
  return `${label}: ${state}${done > 0 ? `, ${formatBytes(done)}` : ''}`;
}

/** A listener for one registration or commit. */
export function tarProgress(display: ProgressDisplay, label: string, state: string): ProgressListener {
  return ({ bytesRead, totalBytes }) =>
    display.update(label, { label, state, ended: false, done: bytesRead, total: totalBytes });
}

const LOAD_STATES = { present: 'Already exists', unpacking: 'Extracting', done: 'Load complete' };

/** A listener for images that are loaded. */
export function loadProgress(display: ProgressDisplay): ImageProgressListener {
  return ({ image, diffID, layer, layers, status, bytesRead, totalBytes }) => {
    display.expect(image, layers);
    display.update(`${image} ${layer}`, {
      label: diffID === undefined ? `layer ${layer + 1}` : shortID(diffID),
      state: LOAD_STATES[status],
      ended: status !== 'unpacking',
      done: bytesRead,
      total: totalBytes,
    });
  };
}

/** A listener for an image that is saved. */
export function saveProgress(display: ProgressDisplay): SaveProgressListener {
  return ({ image, diffID, layer, layers, bytesWritten, totalBytes }) => {
    display.expect(image, layers);
    const ended = bytesWritten >= totalBytes;
    display.update(`${image} ${layer}`, {
      label: shortID(diffID),
      state: ended ? 'Saved' : 'Saving',
      ended,
      done: bytesWritten,
      total: totalBytes,
    });
  };
}

const BLOB_STATES = {
  exists: 'Already exists',
  mounted: 'Mounted',
  waiting: 'Waiting',
  downloading: 'Downloading',
  unpacking: 'Extracting',
  uploading: 'Pushing',
};

/** A listener for a pull or push; `complete` is what a blob that is done says: `Pull complete`, `Pushed`. */
export function blobProgress(display: ProgressDisplay, complete: string): (progress: BlobProgress) => void {
  return ({ digest, total, transferred, unpacked, state, attempts }) => {
    const text = state === 'done' ? complete : BLOB_STATES[state];
    // All bytes are here and their number says nothing any more: what is unpacked does.
    const unpacking = state === 'unpacking';
    display.update(digest, {
      label: shortID(digest),
      state: attempts > 1 && state !== 'done' ? `${text} (try ${attempts})` : text,
      ended: state === 'done' || state === 'exists' || state === 'mounted',
      done: unpacking ? unpacked : transferred,
      total: unpacking ? undefined : total,
    });
  };
}
