/** A process that is killed, and a machine that loses power, before each single step of each operation. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openStore } from '../../src/store/open.js';
import { Disks, memory } from './support/disks.js';
import { assertNoLosses, check, fold, leftovers, type Checked, type Entry } from './support/promises.js';
import { beginProtocol, learnProtocol, runSteps } from './support/step-run.js';

interface Moment {
  place: string;
  from: number;
  where: string;
}

/** What background threads unlink meanwhile may be missing: that is a moment too, and cp's complaint about it none. */
function copyNow(from: string, to: string): void {
  const { status, stderr } = spawnSync('cp', ['-a', '-x', '--', from, to], { encoding: 'utf8' });
  const complaints = stderr.split('\n').filter((line) => line !== '' && !line.includes('/.removing-'));
  if (status !== 0 && complaints.length > 0) throw new Error(complaints.join('\n'));
}

/** Opens what was left, checks it, and looks for what should not be there. */
async function inspect(
  root: string,
  driver: 'overlay2' | 'vfs',
  log: readonly Entry[],
  moment: Moment,
): Promise<Checked> {
  try {
    const store = await openStore({ root, engine: 'native', driver });
    try {
      const found = await check(store, fold(log, moment.from));
      found.losses.push(...(await leftovers(store, root, driver)).map((what) => `left over: ${what}`));
      return found;
    } finally {
      await store.close();
    }
  } catch (error) {
    return { promises: 0, layers: 0, rwLayers: 0, losses: [`the store does not open: ${String(error)}`] };
  }
}

function report(name: string, moments: number, all: readonly Checked[]): string {
  const sum = (count: (one: Checked) => number): number => all.reduce((total, one) => total + count(one), 0);
  return `${name}: ${moments} moments, ${sum(({ promises }) => promises)} promises, ${sum(({ layers }) => layers)} layers exported and compared, ${sum(({ losses }) => losses.length)} losses`;
}

for (const driver of ['overlay2', 'vfs'] as const) {
  test(`${driver}: killed before each step`, async (t) => {
    const directory = memory(t, 'steps');
    const operations = await learnProtocol(join(directory, 'learn'), driver);
    const root = join(directory, 'root');
    const log = await beginProtocol(root, driver);
    const checked: Checked[] = [];
    const moments: Moment[] = [];
    // What a killed process leaves is what the file system shows at that moment.
    const freeze = (where: string): void => {
      const place = join(directory, `moment-${moments.length}`);
      mkdirSync(place);
      copyNow(root, join(place, 'root'));
      moments.push({ place, from: log.length, where });
    };
    await runSteps(root, driver, operations, log, freeze);
    for (const moment of moments) {
      const found = await inspect(join(moment.place, 'root'), driver, log, moment);
      checked.push({ ...found, losses: found.losses.map((loss) => `${moment.where}: ${loss}`) });
      rmSync(moment.place, { recursive: true });
    }
    t.diagnostic(report(`${driver}, killed`, moments.length, checked));
    assertNoLosses(
      checked.flatMap(({ losses }) => losses),
      'killed',
    );
  });
}

test('overlay2 on ext4: power lost before each step', async (t) => {
  const disks = Disks.cloning(t);
  const operations = await learnProtocol(join(disks.directory, 'learn'), 'overlay2');
  const image = disks.image('ext4');
  const place = disks.mount(image, 'ext4');
  const root = join(place, 'root');
  const log = await beginProtocol(root, 'overlay2');
  const moments: Moment[] = [];
  let last = '';
  const cut = (where: string): void => {
    // Steps that put nothing on the disk and promise nothing would give the same clone again.
    const state = `${statSync(image, { bigint: true }).mtimeNs} ${log.length}`;
    if (state === last) return;
    last = state;
    moments.push({ place: disks.clone(image), from: log.length, where });
  };
  await runSteps(root, 'overlay2', operations, log, cut);
  disks.unmount(place);
  const checked: Checked[] = [];
  for (const moment of moments) {
    const mounted = disks.mount(moment.place, 'ext4');
    const found = await inspect(join(mounted, 'root'), 'overlay2', log, moment);
    checked.push({ ...found, losses: found.losses.map((loss) => `${moment.where}: ${loss}`) });
    disks.unmount(mounted);
    disks.remove(moment.place);
  }
  t.diagnostic(report('overlay2 on ext4, power lost', moments.length, checked));
  assertNoLosses(
    checked.flatMap(({ losses }) => losses),
    'power lost',
  );
});
