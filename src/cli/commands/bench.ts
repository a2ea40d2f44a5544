import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { runTrials, writeSampleTar } from '../bench-trials.js';
import type { Command } from '../command.js';
import { formatBytes, formatDuration, formatTable } from '../format.js';

export const bench: Command = {
  name: 'bench',
  summary: 'native beside pure JavaScript on this machine',
  usage: '[--runs N]',
  details: 'Works in a scratch directory below the root, and removes it. --engine measures one engine alone.',
  examples: ['layerstore bench', 'layerstore bench --runs 7 --json'],
  options: { runs: { type: 'string' } },
  positionals: [0, 0],
  completes: [],
  async run({ options, terminal, signal }, _positionals, values) {
    const runs = values.integer('runs', [1, 100]) ?? 3;
    const driver = options.driver ?? 'auto';
    await mkdir(options.root, { recursive: true, mode: 0o710 });
    const scratch = await mkdtemp(join(options.root, 'bench-'));
    try {
      const tar = join(scratch, 'sample.tar');
      terminal.status(['making a sample tar']);
      await writeSampleTar(tar);
      const engines = options.engine === undefined ? (['native', 'js'] as const) : [options.engine];
      const results = await runTrials(
        { scratch, driver, tar, tarSize: (await stat(tar)).size, engines, runs, signal },
        (text) => terminal.status([text]),
      );
      terminal.result(results, () =>
        formatTable(
          [
            { title: 'TRIAL' },
            { title: 'ENGINE' },
            { title: 'MEDIAN', right: true },
            { title: 'MIN', right: true },
            { title: 'MAX', right: true },
            { title: 'RATE', right: true },
          ],
          results.map(({ trial, engine, median, min, max, rate, unit }) => [
            trial,
            engine,
            formatDuration(median),
            formatDuration(min),
            formatDuration(max),
            unit === 'bytes' ? `${formatBytes(Math.round(rate))}/s` : `${rate.toFixed(0)}/s`,
          ]),
          terminal.columns,
        ),
      );
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  },
};
