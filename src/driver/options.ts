/** Options of drivers and of their layers: text in, checked values out; nothing is ever glued into a mount unchecked. */
import { invalidArgument } from '../errors.js';
import { quote } from '../util/quote.js';

/** How overlay mounts of a store are made. */
export interface MountProfile {
  /** For a writable mount, in the kernel's words. */
  readonly writable: readonly string[];
  /** For a mount without an upper directory. */
  readonly readOnly: readonly string[];
  readonly volatile: boolean;
  readonly index: boolean;
}

export interface Overlay2Options {
  /** Default limit of each RW layer, bytes. */
  readonly size: number | undefined;
  /** From `overlay2.mountopt`, `key=value` or a flag; each once. */
  readonly mountOptions: ReadonlyMap<string, string | undefined>;
}

/** Options of a store's driver, checked. */
export interface DriverOptions extends Overlay2Options {
  /** Owners that a plain user cannot set are left out, and so is all else that privilege `none` lacks. */
  readonly ignoreChownErrors: boolean;
}

const CHOICES: Readonly<Record<string, readonly string[]>> = {
  metacopy: ['on', 'off'],
  redirect_dir: ['on', 'off', 'follow', 'nofollow'],
  index: ['on', 'off'],
  xino: ['on', 'off', 'auto'],
};
const FLAGS: readonly string[] = ['volatile', 'nodev', 'noexec', 'nosuid'];
const UNITS = ['', 'k', 'm', 'g', 't', 'p'];

/** Bytes of `10G`, `512m`, `1.5 TiB`: Docker's units, all of them powers of 1,024. */
export function parseSize(text: string, what: string): number {
  const match = /^(\d{1,16}(?:\.\d{1,6})?) ?([kmgtp]?)i?b?$/i.exec(text);
  const bytes =
    match === null ? NaN : Math.floor(Number(match[1]) * 1024 ** UNITS.indexOf((match[2] ?? '').toLowerCase()));
  if (Number.isSafeInteger(bytes)) return bytes;
  throw invalidArgument(`${what} is ${quote(text)}: give a number of bytes, or one with k, m, g, t or p, like "10G"`);
}

/** The comma list of `overlay2.mountopt`. */
export function parseMountOptions(text: string): Map<string, string | undefined> {
  const found = new Map<string, string | undefined>();
  if (text === '') return found;
  for (const part of text.split(',')) {
    const [key, value] = splitOnce(part, '=');
    const choices = Object.hasOwn(CHOICES, key) ? CHOICES[key] : undefined;
    if (choices === undefined && !FLAGS.includes(key)) {
      throw invalidArgument(
        `overlay2.mountopt has ${quote(part)}, which is not known: use ${[...FLAGS, ...Object.keys(CHOICES).map((name) => `${name}=…`)].join(', ')}`,
      );
    }
    if (choices === undefined ? value !== undefined : value === undefined || !choices.includes(value)) {
      throw invalidArgument(
        `overlay2.mountopt has ${quote(part)}: write ${choices === undefined ? `"${key}" alone` : choices.map((choice) => `"${key}=${choice}"`).join(' or ')}`,
      );
    }
    if (found.has(key)) throw invalidArgument(`overlay2.mountopt names "${key}" twice: keep one of them`);
    found.set(key, value);
  }
  const redirect = found.get('redirect_dir');
  if (found.get('metacopy') === 'on' && (redirect === 'off' || redirect === 'nofollow')) {
    throw invalidArgument(
      `overlay2.mountopt has "metacopy=on", which the kernel takes only with "redirect_dir=on" or "follow", not "${redirect}"`,
    );
  }
  return found;
}

function splitOnce(text: string, at: string): [string, string | undefined] {
  const index = text.indexOf(at);
  return index < 0 ? [text, undefined] : [text.slice(0, index), text.slice(index + at.length)];
}

/** Checks the driver options of a store, for any driver: ERR_INVALID_ARGUMENT for a key or value that is not known. */
export function parseDriverOptions(options: Readonly<Record<string, string>>): DriverOptions {
  let size: number | undefined;
  let mountOptions = new Map<string, string | undefined>();
  let ignoreChownErrors = false;
  for (const [key, value] of Object.entries(options)) {
    if (typeof value !== 'string')
      throw invalidArgument(`the driver option "${key}" is not a string: give it as a string`);
    switch (key.toLowerCase()) {
      case 'overlay2.size':
        size = parseSize(value, 'overlay2.size');
        break;
      case 'overlay2.mountopt':
        mountOptions = parseMountOptions(value);
        break;
      case 'ignore_chown_errors':
        if (value !== 'true' && value !== 'false')
          throw invalidArgument(`ignore_chown_errors is ${quote(value)}: give "true" or "false"`);
        ignoreChownErrors = value === 'true';
        break;
      default:
        throw invalidArgument(
          `the driver option ${quote(key)} is not known: there are "overlay2.size", "overlay2.mountopt" and "ignore_chown_errors"`,
        );
    }
  }
  // As in Docker 0 is no limit.
  return { size: size === 0 ? undefined : size, mountOptions, ignoreChownErrors };
}

/** ERR_INVALID_ARGUMENT for mount options that the kernel refuses together with `userxattr`. */
export function checkUserXattr(chosen: Overlay2Options['mountOptions']): void {
  const redirect = chosen.get('redirect_dir');
  const refused =
    chosen.get('metacopy') === 'on'
      ? 'metacopy=on'
      : redirect !== undefined && redirect !== 'nofollow'
        ? `redirect_dir=${redirect}`
        : undefined;
  if (refused !== undefined) {
    throw invalidArgument(
      `overlay2.mountopt has "${refused}", which the kernel does not take for a root whose layers are made without being root: omit it`,
    );
  }
}

/** The size an RW layer asks for, `undefined` for none. */
export function parseStorageOpt(storageOpt: Readonly<Record<string, string>> | undefined): number | undefined {
  let size: number | undefined;
  for (const [key, value] of Object.entries(storageOpt ?? {})) {
    if (key.toLowerCase() !== 'size')
      throw invalidArgument(`the storage option ${quote(key)} is not known: there is only "size"`);
    size = parseSize(String(value), 'the storage option "size"');
  }
  return size === 0 ? undefined : size;
}

/**
 * Mount options for writable and for read-only mounts. `hasIndex`: the kernel knows `index`, which Docker then switches
 * off. `switchedOff`: what writable mounts go without, whatever the kernel's own default is, unless it was chosen.
 */
export function mountProfile(
  chosen: ReadonlyMap<string, string | undefined>,
  hasIndex: boolean,
  switchedOff: readonly string[] = [],
): MountProfile {
  const readOnly = new Map(hasIndex ? [['index', 'off'] as [string, string | undefined], ...chosen] : chosen);
  const all = new Map(readOnly);
  // metacopy=on needs redirects, so it switches them on.
  if (chosen.get('metacopy') !== 'on') for (const key of switchedOff) if (!all.has(key)) all.set(key, 'off');
  // Both mean something only where there is an upper directory; redirects of lower layers are followed all the same.
  readOnly.delete('volatile');
  if (readOnly.get('index') === 'on') readOnly.set('index', 'off');
  if (readOnly.get('redirect_dir') === 'on') readOnly.set('redirect_dir', 'follow');
  const text = (options: ReadonlyMap<string, string | undefined>): string[] =>
    [...options].map(([key, value]) => (value === undefined ? key : `${key}=${value}`));
  return {
    writable: text(all),
    readOnly: text(readOnly),
    volatile: all.has('volatile'),
    index: all.get('index') === 'on',
  };
}

/** `context="…"` for a mount; ERR_INVALID_ARGUMENT for a label that could end its own quotes. */
export function contextOption(label: string): string {
  if (/^[\x21\x23-\x7e]{1,1024}$/.test(label)) return `context="${label}"`;
  throw invalidArgument(
    `the mount label ${quote(label)} is no SELinux context: give printable ASCII without blanks and quotes`,
  );
}
