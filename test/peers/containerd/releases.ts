/**
 * Releases of containerd: the one that Debian 12 installs, and later ones out of packages of later Debians, unpacked in a
 * directory and run from there. Those are Go programs that take an older C library, too.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { requirePeers } from '../support.js';

export type Release = 'installed' | 'trixie' | 'sid';
/** With a proxy differ, which came in 1.7.5. */
export const WITH_DIFFER: readonly Release[] = ['trixie', 'sid'];
export const RELEASES: readonly Release[] = ['installed', ...WITH_DIFFER];

/** Kept over runs, since it is a download of 30 MB. */
const KEPT = join(import.meta.dirname, '../../../node_modules/.layerstore-containerd');

export interface Programs {
  /** Directory of `containerd`, `ctr` and the shim. */
  readonly bin: string;
  /** 1.6, 1.7, 2.1 … */
  readonly version: string;
}

export function programsOf(release: Release): Programs {
  requirePeers('containerd', 'ctr', 'runc');
  const bin = release === 'installed' ? '/usr/bin' : unpacked(release);
  const said = execFileSync(join(bin, 'containerd'), ['--version'], { encoding: 'utf8' });
  const version = / v?(\d+\.\d+)\.\d/.exec(said)?.[1];
  if (version === undefined) throw new Error(`containerd says no version: ${said}`);
  return { bin, version };
}

function unpacked(release: Exclude<Release, 'installed'>): string {
  const directory = join(KEPT, release);
  if (!existsSync(directory)) {
    const scratch = `${directory}.new`;
    rmSync(scratch, { recursive: true, force: true });
    mkdirSync(scratch, { recursive: true });
    const archive = download(release, scratch);
    execFileSync('dpkg-deb', ['--extract', archive, join(scratch, 'tree')]);
    renameSync(join(scratch, 'tree'), directory);
    rmSync(scratch, { recursive: true, force: true });
  }
  return join(directory, 'usr/bin');
}

/** By an apt with lists of its own: the system's are not touched. */
function download(release: string, scratch: string): string {
  for (const name of ['lists/partial', 'cache/archives/partial', 'etc'])
    mkdirSync(join(scratch, name), { recursive: true });
  const sources = join(scratch, 'etc/sources.list');
  writeFileSync(
    sources,
    `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian ${release} main\n`,
  );
  const config = join(scratch, 'apt.conf');
  writeFileSync(
    config,
    `Dir::State "${scratch}";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "${scratch}/cache";
Dir::Etc::sourcelist "${sources}";
Dir::Etc::sourceparts "-";
Dir::Etc::preferencesparts "-";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "root";
`,
  );
  const apt = (...words: string[]): void =>
    void execFileSync('apt-get', ['-qq', ...words], {
      cwd: scratch,
      env: { ...process.env, APT_CONFIG: config },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  apt('update');
  apt('download', `containerd/${release}`);
  const archive = readdirSync(scratch).find((name) => name.endsWith('.deb'));
  if (archive === undefined) throw new Error(`apt downloaded no containerd of ${release}`);
  return join(scratch, archive);
}
