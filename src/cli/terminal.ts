/**
 * The command's way to the outside: values and tables on standard output, everything for people on standard error.
 * With `--json` exactly one JSON value goes to standard output.
 */
import type { Writable } from 'node:stream';

export interface TerminalStreams {
  stdout: Writable & { isTTY?: boolean; columns?: number };
  stderr: Writable & { isTTY?: boolean; columns?: number; rows?: number };
  env: Readonly<Record<string, string | undefined>>;
}

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow';
const CODES: Record<Style, readonly [number, number]> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
};

export class Terminal {
  readonly #streams: TerminalStreams;
  readonly json: boolean;
  readonly interactive: boolean;
  readonly #colours: boolean;
  /** Lines of the status that stand on the screen; the cursor is at the end of the last one. */
  #statusLines = 0;
  #finished = false;

  constructor(streams: TerminalStreams, json: boolean) {
    this.#streams = streams;
    this.json = json;
    this.interactive = streams.stderr.isTTY === true;
    // https://no-color.org: any non-empty value
    this.#colours = streams.stdout.isTTY === true && !streams.env['NO_COLOR'] && streams.env['TERM'] !== 'dumb';
  }

  get columns(): number {
    return Math.max(20, this.#streams.stderr.columns ?? 80);
  }

  get rows(): number {
    return Math.max(2, this.#streams.stderr.rows ?? 24);
  }

  /** A line of plain output; nothing with `--json`. */
  line(text: string): void {
    if (!this.json) this.#streams.stdout.write(`${text}\n`);
  }

  /** The one value of `--json`, or `text` for people. */
  result(value: unknown, text: () => string): void {
    this.#clearStatus();
    if (this.json) this.#streams.stdout.write(`${JSON.stringify(value)}\n`);
    else {
      const out = text();
      if (out !== '') this.#streams.stdout.write(`${out}\n`);
    }
  }

  /** A line for people on standard error. */
  note(text: string): void {
    this.#clearStatus();
    this.#streams.stderr.write(`${text}\n`);
  }

  /** Replaces the status lines; only on a terminal. Lines are cut: one that wrapped could not be replaced. */
  status(lines: readonly string[]): void {
    if (!this.interactive || this.#finished) return;
    const text = lines.map((line) => `${line.slice(0, this.columns - 1)}\u001b[K`).join('\n');
    this.#streams.stderr.write(`${this.#toStatus()}${text}\u001b[J`);
    this.#statusLines = lines.length;
  }

  /** Leaves the status lines on the screen. */
  keepStatus(): void {
    if (this.#statusLines > 0) this.#streams.stderr.write('\n');
    this.#statusLines = 0;
  }

  /** To the beginning of the status. */
  #toStatus(): string {
    return this.#statusLines > 1 ? `\r\u001b[${this.#statusLines - 1}A` : '\r';
  }

  #clearStatus(): void {
    if (this.#statusLines > 0) this.#streams.stderr.write(`${this.#toStatus()}\u001b[J`);
    this.#statusLines = 0;
  }

  /** Takes the status away; there is none after this. */
  done(): void {
    this.#clearStatus();
    this.#finished = true;
  }

  style(style: Style, text: string): string {
    if (!this.#colours) return text;
    const [on, off] = CODES[style];
    return `\u001b[${on}m${text}\u001b[${off}m`;
  }

  /** Standard output itself, for a tar. */
  get output(): Writable & { isTTY?: boolean } {
    return this.#streams.stdout;
  }
}
