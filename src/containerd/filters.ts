/**
 * containerd's filter language, as far as snapshots have fields: selectors with a comma between them, all of which must
 * hold; of several filters one must. A selector is a field path alone (is it there?), or with `==`, `!=` or `~=` (a regular
 * expression) and a value: `kind==active`, `labels."containerd.io/snapshot.ref"==sha256:…,parent=="x"`.
 * Fields are `name`, `parent`, `kind`, and `labels` followed by a label's name, dots in it included.
 */
import { LayerStoreError } from '../errors.js';
import { quote } from '../util/quote.js';
import type { SnapshotRecord } from './records.js';

export type SnapshotFilter = (snapshot: SnapshotRecord) => boolean;

/** ERR_INVALID_ARGUMENT for one that does not follow the grammar. No filter, or an empty one, takes every snapshot. */
export function parseFilters(texts: readonly string[]): SnapshotFilter {
  if (texts.length === 0) return () => true;
  const filters = texts.map((text) => (text === '' ? () => true : new Parser(text).filter()));
  return (snapshot) => filters.some((fits) => fits(snapshot));
}

function fieldOf(snapshot: SnapshotRecord, [first, ...rest]: readonly string[]): string | undefined {
  if (first === 'name') return snapshot.name;
  if (first === 'parent') return snapshot.parent;
  if (first === 'kind') return snapshot.kind;
  if (first !== 'labels') return undefined;
  const label = rest.join('.');
  return Object.hasOwn(snapshot.labels, label) ? snapshot.labels[label] : undefined;
}

const FIELD = /[A-Za-z0-9_]+/y;
const OPERATOR = /[=!~]+/y;
const VALUE = /[^\s,]+/y;
const BLANKS = /\s*/y;
const ESCAPES: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};
const NUMBERED = /\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3}))/y;

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  filter(): SnapshotFilter {
    const selectors = [this.#selector()];
    while (!this.#end()) {
      if (this.#text[this.#at] !== ',') throw this.#wrong('a comma is expected');
      this.#at += 1;
      selectors.push(this.#selector());
    }
    return (snapshot) => selectors.every((fits) => fits(snapshot));
  }

  #selector(): SnapshotFilter {
    const path = this.#path();
    if (this.#end() || this.#text[this.#at] === ',') return (snapshot) => fieldOf(snapshot, path) !== undefined;
    const operator = this.#take(OPERATOR);
    if (operator !== '==' && operator !== '!=' && operator !== '~=')
      throw this.#wrong('"==", "!=" or "~=" is expected');
    const value = this.#value(operator === '~=');
    if (operator === '==') return (snapshot) => fieldOf(snapshot, path) === value;
    if (operator === '!=') return (snapshot) => fieldOf(snapshot, path) !== value;
    const pattern = this.#pattern(value);
    return (snapshot) => {
      const field = fieldOf(snapshot, path);
      return field !== undefined && pattern.test(field);
    };
  }

  #path(): string[] {
    const path = [this.#field()];
    while (this.#text[this.#at] === '.') {
      this.#at += 1;
      path.push(this.#field());
    }
    this.#take(BLANKS);
    return path;
  }

  #field(): string {
    this.#take(BLANKS);
    const next = this.#text[this.#at];
    if (next === '"' || next === "'") return this.#quoted(next);
    const field = this.#take(FIELD);
    if (field === '') throw this.#wrong('the name of a field is expected');
    return field;
  }

  #value(isPattern: boolean): string {
    this.#take(BLANKS);
    const next = this.#text[this.#at];
    if (next === '"' || next === "'" || (isPattern && (next === '/' || next === '|'))) {
      const value = this.#quoted(next);
      this.#take(BLANKS);
      return value;
    }
    const value = this.#take(VALUE);
    if (value === '') throw this.#wrong('a value is expected');
    this.#take(BLANKS);
    return value;
  }

  /** Go's escapes; between slashes or bars, which only patterns have, a backslash stays one unless it escapes the end. */
  #quoted(end: string): string {
    const raw = end === '/' || end === '|';
    let value = '';
    for (this.#at += 1; ;) {
      const next = this.#text[this.#at];
      if (next === undefined || next === '\n') throw this.#wrong('the quotation does not end');
      if (next === end) {
        this.#at += 1;
        return value;
      }
      if (next !== '\\') {
        value += next;
        this.#at += 1;
      } else if (raw) {
        const escaped = this.#text[this.#at + 1] ?? '';
        value += escaped === end ? end : `\\${escaped}`;
        this.#at += 2;
      } else {
        value += this.#escape(end);
      }
    }
  }

  #escape(end: string): string {
    const letter = this.#text[this.#at + 1] ?? '';
    const plain = letter === '\\' || letter === end ? letter : ESCAPES[letter];
    if (plain !== undefined) {
      this.#at += 2;
      return plain;
    }
    NUMBERED.lastIndex = this.#at;
    const match = NUMBERED.exec(this.#text);
    const [whole, byte, short, long, octal] = match ?? [];
    if (whole === undefined) throw this.#wrong('there is no such escape');
    const code = octal === undefined ? parseInt(byte ?? short ?? long ?? '', 16) : parseInt(octal, 8);
    if (code > 0x10ffff) throw this.#wrong('there is no such character');
    this.#at += whole.length;
    return String.fromCodePoint(code);
  }

  #pattern(text: string): RegExp {
    try {
      return new RegExp(text, 'u');
    } catch {
      throw this.#wrong(`${quote(text)} is no regular expression`);
    }
  }

  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const taken = pattern.exec(this.#text)?.[0] ?? '';
    this.#at += taken.length;
    return taken;
  }

  #end(): boolean {
    this.#take(BLANKS);
    return this.#at >= this.#text.length;
  }

  #wrong(why: string): LayerStoreError {
    return new LayerStoreError(
      'ERR_INVALID_ARGUMENT',
      `cannot read the filter ${quote(this.#text)}: at character ${this.#at + 1} ${why}`,
    );
  }
}
