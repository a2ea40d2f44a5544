/** `npm run bench`: runs the trials, prints a table, saves results. See README.md beside this file for the options. */
import { cpus, release, totalmem } from 'node:os';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openEngine } from '../src/engine/select.js';
import { dropCaches } from './cold.js';
import { endWorkers } from './contestants.js';
import { FreshDisk } from './fresh-disk.js';
import { ImageArchive } from './image-archive.js';
import { imageTrials } from './image-trials.js';
import { pullTrials } from './pull-trials.js';
import { LocalRegistry } from './registry.js';
import { describeInputs } from './inputs.js';
import { barChart, markdownTable, TABLE_HEAD, tableRows } from './report.js';
import { runTrial, type TrialResult } from './runner.js';
import { allTrials, type Maker } from './trials.js';

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [] },
    runs: { type: 'string' },
    'no-js': { type: 'boolean', default: false },
    cold: { type: 'boolean', default: false },
    save: { type: 'string' },
    list: { type: 'boolean', default: false },
  },
});
const runs = Number(values.runs ?? 3);
/** Milliseconds that a run without `--runs` may take: what is slow has fewer runs then. */
const BUDGET = 200_000;
if (!Number.isSafeInteger(runs) || runs < 1) throw new Error(`--runs is "${values.runs}": give a number from 1 on`);

const scratch = await mkdtemp(join('/var/tmp', 'layerstore-bench-'));
const started = performance.now();
let disk: FreshDisk | undefined;
let registry: LocalRegistry | undefined;
const clean = async (): Promise<void> => {
  endWorkers();
  registry?.close();
  await disk?.close();
  await rm(scratch, { recursive: true, force: true });
};
const stop = (): void => void clean().finally(() => process.exit(1));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, stop);
try {
  await main();
} finally {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, stop);
  await clean();
}

async function main(): Promise<void> {
  const inputs = describeInputs(scratch, process.env['LAYERSTORE_CORPUS']);
  disk = await FreshDisk.make(scratch, console.error);
  const maker = { scratch, disk: disk.path, engines: await enginesHere(), runs };
  const archive = new ImageArchive(scratch, process.env['LAYERSTORE_CORPUS'], inputs);
  registry = new LocalRegistry(scratch, archive);
  const every = [...allTrials(maker, inputs), ...imageTrials(maker, archive), ...pullTrials(maker, archive, registry)];
  const trials = every.filter(
    ({ name, group }) => values.only.length === 0 || values.only.some((word) => name.includes(word) || group === word),
  );
  if (trials.length === 0) throw new Error(`no trial matches ${values.only.join(', ')}; --list names them`);
  if (values.list) {
    console.log(trials.map(({ name }) => name).join('\n'));
    return;
  }
  console.log(TABLE_HEAD);
  const results: TrialResult[] = [];
  const { isTTY } = process.stderr;
  const say = (text: string): void => void (isTTY && process.stderr.write(`\r\u001b[2K${text}`));
  for (const [index, trial] of trials.entries()) {
    const left = BUDGET - (performance.now() - started);
    const allowance = values.runs === undefined ? left / (trials.length - index) : Infinity;
    const result = await runTrial(trial, { say, disk, allowance, ...(values.cold ? { before: dropCaches } : {}) });
    results.push(result);
    say('');
    console.log(tableRows(result));
  }
  const machine = `Node ${process.version}, Linux ${release()}, ${cpus().length} × ${cpus()[0]?.model ?? '?'}, ${Math.round(totalmem() / 2 ** 30)} GiB`;
  const how = `${values.cold ? 'cold' : 'warm'} caches, ${values.runs === undefined ? 'up to ' : ''}${runs} runs each, interleaved; on ${disk.kind}`;
  console.log(`\n${machine}; ${how}; ${Math.round((performance.now() - started) / 1000)} s`);
  if (values.save !== undefined) await save(values.save, results, machine, how);
}

/** The engines that take part, the faster first. */
async function enginesHere(): Promise<Maker['engines']> {
  const wanted = values['no-js'] ? (['native'] as const) : (['native', 'js'] as const);
  try {
    await openEngine({ engine: 'native' });
    return wanted;
  } catch (error) {
    console.error(`without the native engine: ${(error as Error).message}`);
    return wanted.filter((name) => name !== 'native');
  }
}

async function save(name: string, results: readonly TrialResult[], machine: string, how: string): Promise<void> {
  const folder = join(import.meta.dirname, 'results');
  await mkdir(folder, { recursive: true });
  const write = (file: string, text: string): Promise<void> => writeFile(join(folder, file), text);
  await write(`${name}.json`, `${JSON.stringify({ machine, how, results }, null, 1)}\n`);
  await write(`${name}.md`, `${markdownTable(results)}\n\n${machine}; ${how}\n`);
  const about = `median wall time, less is better; line: min to max; each block to its own scale; ${how}`;
  const chart = (file: string, title: string, some: readonly TrialResult[]): Promise<void> | undefined =>
    some.length === 0 ? undefined : write(file, barChart(title, about, some));
  await chart(
    `${name}.svg`,
    'layerstore: native, pure JavaScript, and the tools of the system',
    results.filter(({ headline }) => headline),
  );
  for (const group of new Set(results.map((result) => result.group))) {
    await chart(
      `${name}-${group.replaceAll(' ', '-').toLowerCase()}.svg`,
      `layerstore: ${group}`,
      results.filter((result) => result.group === group),
    );
  }
}
