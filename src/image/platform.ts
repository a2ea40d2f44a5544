/** Platforms as OCI writes them (`os/architecture[/variant]`), and which of several fits best. */
import { quote } from '../util/quote.js';
import { isObject } from './json.js';
import { invalidArgument } from '../errors.js';
import { defined } from '../util/defined.js';

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

/** Node's name of an architecture -> Go's, which images use. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  ia32: '386',
  arm64: 'arm64',
  arm: 'arm',
  ppc64: 'ppc64le',
  s390x: 's390x',
  riscv64: 'riscv64',
  loong64: 'loong64',
  mips64el: 'mips64le',
};

export function hostPlatform(): Platform {
  return { os: 'linux', architecture: ARCHITECTURES[process.arch] ?? process.arch };
}

/** ERR_INVALID_ARGUMENT unless `text` is `os/architecture[/variant]`. */
export function parsePlatform(text: string): Platform {
  const parts = typeof text === 'string' ? text.toLowerCase().split('/') : [];
  const [os, architecture, variant] = parts;
  if (
    parts.length < 2 ||
    parts.length > 3 ||
    !os ||
    !architecture ||
    !parts.every((part) => /^[a-z0-9_.-]+$/.test(part))
  ) {
    throw invalidArgument(`${quote(String(text))} is not a platform: write OS/ARCHITECTURE[/VARIANT], "linux/arm64"`);
  }
  return normalize({ os, architecture, ...defined({ variant }) });
}

/** The platform of a descriptor or an image configuration; undefined where it says none. */
export function readPlatform(value: unknown): Platform | undefined {
  if (!isObject(value) || typeof value['os'] !== 'string' || typeof value['architecture'] !== 'string')
    return undefined;
  const variant = value['variant'];
  return normalize({
    os: value['os'],
    architecture: value['architecture'],
    ...(typeof variant === 'string' && variant !== '' ? { variant } : {}),
  });
}

/** arm64 is v8 and arm is v7 unless something else is said, so those two are left out. */
function normalize({ os, architecture, variant }: Platform): Platform {
  const implied =
    (architecture === 'arm64' && (variant === 'v8' || variant === '8')) ||
    (architecture === 'arm' && (variant === 'v7' || variant === '7'));
  return variant === undefined || implied ? { os, architecture } : { os, architecture, variant };
}

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return variant === undefined ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/** How well `offered` runs where `wanted` is asked for: 2 exactly, 1 by architecture with the plainest variant, 0 not. */
export function platformFit(wanted: Platform, offered: Platform): 0 | 1 | 2 {
  if (wanted.os !== offered.os || wanted.architecture !== offered.architecture) return 0;
  if (wanted.variant === offered.variant) return 2;
  // Older variants of arm run on newer ones; an image for a newer variant does not run where an older one is asked for.
  if (wanted.architecture === 'arm') return level(offered) < level(wanted) ? 1 : 0;
  return offered.variant === undefined ? 1 : 0;
}

function level({ variant }: Platform): number {
  return Number(variant?.replace(/^v/, '') ?? 7);
}
