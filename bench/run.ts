/**
 * `npm run bench -- [--only WORD…] [--runs N] [--no-js] [--save NAME]`: runs the trials, prints a table, and with --save
 * writes bench/results/NAME.{json,md} and one SVG a group. LAYERSTORE_CORPUS names a directory with layers/N-NAME.tar.
 */
import { cpus, release, totalmem } from 'node:os';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findInputs } from './inputs.js';
import { barChart, markdownTable } from './report.js';
import { runTrial, type TrialResult } from './runner.js';
import { allTrials } from './trials.js';

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [] },
    runs: { type: 'string', default: '3' },
    js: { type: 'boolean', default: true },
    'no-js': { type: 'boolean', default: false },
    save: { type: 'string' },
    list: { type: 'boolean', default: false },
  },
});
const scratch = await mkdtemp(join('/var/tmp', 'layerstore-bench-'));
const started = performance.now();
const stop = (): void => {
  void rm(scratch, { recursive: true, force: true }).finally(() => process.exit(1));
};
process.once('SIGINT', stop);
try {
  const inputs = await findInputs(scratch, process.env['LAYERSTORE_CORPUS']);
  const trials = allTrials({ scratch, withJs: !values['no-js'], runs: Number(values.runs) }, inputs).filter(
    ({ name, group }) => values.only.length === 0 || values.only.some((word) => name.includes(word) || group === word),
  );
  if (values.list) console.log(trials.map(({ name }) => name).join('\n'));
  const results: TrialResult[] = [];
  for (const trial of values.list ? [] : trials) {
    results.push(await runTrial(trial, (text) => process.stderr.isTTY && process.stderr.write(`\r\u001b[2K${text}`)));
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[2K');
    console.log(
      markdownTable(results.slice(-1))
        .split('\n')
        .slice(results.length === 1 ? 0 : 2)
        .join('\n'),
    );
  }
  const seconds = Math.round((performance.now() - started) / 1000);
  const about = `Node ${process.version}, Linux ${release()}, ${cpus().length} × ${cpus()[0]?.model ?? '?'}, ${Math.round(totalmem() / 2 ** 30)} GiB; warm caches; ${values.runs} runs each, interleaved; ${seconds} s`;
  if (!values.list) console.log(`\n${about}`);
  if (values.save !== undefined) await save(values.save, results, about);
} finally {
  process.off('SIGINT', stop);
  await rm(scratch, { recursive: true, force: true });
}

async function save(name: string, results: readonly TrialResult[], about: string): Promise<void> {
  const folder = join(import.meta.dirname, 'results');
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, `${name}.json`), `${JSON.stringify({ about, results }, null, 1)}\n`);
  await writeFile(join(folder, `${name}.md`), `${markdownTable(results)}\n\n${about}\n`);
  for (const group of new Set(results.map((result) => result.group))) {
    const file = join(folder, `${name}-${group.replaceAll(' ', '-')}.svg`);
    await writeFile(
      file,
      barChart(
        `${group}: median wall time`,
        results.filter((result) => result.group === group),
      ),
    );
  }
}
