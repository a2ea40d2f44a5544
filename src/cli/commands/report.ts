import { Readable } from 'node:stream';
import { systemError } from '../../errors.js';
import { writeChunks, writeTarget } from '../../util/write-target.js';
import type { Command, Context } from '../command.js';
import type { ReportJson } from '../json.js';
import { imageReport } from '../report/data.js';
import { reportPage } from '../report/page.js';
import { needImage } from '../resolve.js';

export const report: Command = {
  name: 'report',
  summary: 'write a page to look into an image',
  usage: 'IMAGE [--compare IMAGE] [-o FILE.html]',
  details:
    'One self-contained HTML file, by default report.html: layers and what each adds, changes and removes, files, a\n' +
    'treemap, wasted bytes, duplicates, differences between layers or from the image named by --compare.',
  examples: ['layerstore report debian:12', 'layerstore report app:2 --compare app:1 -o changes.html'],
  options: { output: { type: 'string', short: 'o' }, compare: { type: 'string' } },
  positionals: [1, 1],
  completes: ['image'],
  async run(context, [id = ''], values) {
    const path = values.text('output') ?? 'report.html';
    const compare = values.text('compare');
    const analyzed = [await analyze(context, id)];
    if (compare !== undefined) analyzed.push(await analyze(context, compare));
    const page = reportPage(imageReport(analyzed), new Date());
    try {
      await writeTarget(path, false, ({ fd }) => writeChunks(fd, Readable.from([Buffer.from(page)])));
    } catch (error) {
      throw systemError(error, 'write the report to', 'choose a place that can be written to', { path });
    }
    const value: ReportJson = { path, bytes: Buffer.byteLength(page) };
    context.terminal.result(value, () => path);
  },
};

async function analyze(context: Context, id: string) {
  const images = await context.images('read');
  const image = await needImage(images, id);
  return { image, analysis: await images.analyze(image.id, { signal: context.signal }) };
}
