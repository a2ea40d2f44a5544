/** A directory for one test of a suite. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Runs `work` with a new directory and removes that, whatever happened. What `work` left mounted there is an error. */
export async function withSuiteDirectory<T>(
  scratch: string | undefined,
  work: (directory: string) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp(join(scratch ?? tmpdir(), 'layerstore-suite-'));
  try {
    const result = await work(directory);
    const left = mountsBelow(directory);
    if (left.length > 0) throw new Error(`left mounted: ${left.join(', ')}`);
    return result;
  } finally {
    // Last first: they may lie on top of each other.
    for (const target of mountsBelow(directory).reverse()) execFileSync('umount', ['-l', '--', target]);
    await rm(directory, { recursive: true, force: true });
  }
}

/** Mount points at or below `directory`, in mount order. */
export function mountsBelow(directory: string): string[] {
  const targets = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) =>
      (line.split(' ')[4] ?? '').replace(/\\([0-7]{3})/g, (_, octal: string) =>
        String.fromCharCode(parseInt(octal, 8)),
      ),
    );
  return targets.filter((target) => target === directory || target.startsWith(`${directory}/`));
}
