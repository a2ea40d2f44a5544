/**
 * The part of TOML (https://toml.io/en/v1.0.0) that containerd's hosts.toml uses: tables, bare, quoted and dotted keys,
 * strings, booleans, whole numbers, arrays. Anything else is an error that names the line.
 */
import type { LayerStoreError } from '../errors.js';
import { invalidArgument } from '../errors.js';
import { quote } from '../util/quote.js';

export type TomlValue = string | boolean | number | TomlValue[] | TomlTable;
/** Without a prototype, so that no key means anything. */
export interface TomlTable {
  [key: string]: TomlValue;
}

/** @param what the file, for errors. ERR_INVALID_ARGUMENT. */
export function parseToml(text: string, what: string): TomlTable {
  return new Parser(text, what).document();
}

const ESCAPES: Readonly<Record<string, string>> = { b: '\b', t: '\t', n: '\n', f: '\f', r: '\r', '"': '"', '\\': '\\' };

class Parser {
  readonly #text: string;
  readonly #what: string;
  #at = 0;

  constructor(text: string, what: string) {
    this.#text = text;
    this.#what = what;
  }

  document(): TomlTable {
    const top = newTable();
    let table = top;
    for (this.#skip(true); this.#at < this.#text.length; this.#skip(true)) {
      if (this.#take('[')) {
        if (this.#text[this.#at] === '[') throw this.#fail('arrays of tables are not understood here');
        table = this.#descend(top, this.#keys());
        this.#expect(']');
      } else {
        const keys = this.#keys();
        this.#expect('=');
        const name = keys.pop() as string;
        const place = this.#descend(table, keys);
        if (name in place) throw this.#fail(`the key ${quote(name)} comes twice`);
        this.#skip(false);
        place[name] = this.#value();
      }
      this.#endOfLine();
    }
    return top;
  }

  #descend(table: TomlTable, keys: readonly string[]): TomlTable {
    for (const key of keys) {
      const below = (table[key] ??= newTable());
      if (typeof below !== 'object' || Array.isArray(below)) throw this.#fail(`${quote(key)} is a value and a table`);
      table = below;
    }
    return table;
  }

  #keys(): string[] {
    const keys: string[] = [];
    do {
      this.#skip(false);
      const quoted = this.#string();
      if (quoted !== undefined) keys.push(quoted);
      else keys.push(this.#match(/[A-Za-z0-9_-]+/y) ?? this.#refuse('a key'));
      this.#skip(false);
    } while (this.#take('.'));
    return keys;
  }

  #value(): TomlValue {
    const text = this.#string();
    if (text !== undefined) return text;
    if (this.#take('[')) return this.#array();
    const word = this.#match(/[A-Za-z0-9_+-]+/y) ?? this.#refuse('a value');
    if (word === 'true' || word === 'false') return word === 'true';
    if (/^[+-]?[0-9](?:_?[0-9])*$/.test(word)) return Number(word.replaceAll('_', ''));
    return this.#refuse('a string, true, false, a whole number or an array');
  }

  #array(): TomlValue[] {
    const items: TomlValue[] = [];
    for (;;) {
      this.#skip(true);
      if (this.#take(']')) return items;
      items.push(this.#value());
      this.#skip(true);
      if (this.#take(']')) return items;
      this.#expect(',');
    }
  }

  #string(): string | undefined {
    if (/^(?:"""|''')/.test(this.#text.slice(this.#at, this.#at + 3)))
      throw this.#fail('strings of several lines are not understood here');
    const literal = this.#match(/'[^'\n]*'/y);
    if (literal !== undefined) return literal.slice(1, -1);
    const basic = this.#match(/"(?:[^"\\\n]|\\.)*"/y);
    return basic?.slice(1, -1).replaceAll(/\\(u[0-9a-fA-F]{4}|.)/g, (_, escape: string) => {
      if (escape.length === 5) return String.fromCharCode(parseInt(escape.slice(1), 16));
      return ESCAPES[escape] ?? this.#refuse('a known escape');
    });
  }

  #skip(lines: boolean): void {
    this.#match(lines ? /(?:[ \t\r\n]|#[^\n]*)*/y : /[ \t]*/y);
  }

  #endOfLine(): void {
    if (this.#match(/[ \t]*(?:#[^\n]*)?\r?(?:\n|$)/y) === undefined) this.#refuse('the end of the line');
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    this.#at += found?.length ?? 0;
    return found;
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #expect(character: string): void {
    this.#skip(false);
    if (!this.#take(character)) this.#refuse(quote(character));
  }

  #refuse(expected: string): never {
    throw this.#fail(`${expected} is expected`);
  }

  #fail(message: string): LayerStoreError {
    const line = this.#text.slice(0, this.#at).split('\n').length;
    return invalidArgument(`${this.#what}, line ${line}: ${message}`);
  }
}

function newTable(): TomlTable {
  return Object.create(null) as TomlTable;
}
