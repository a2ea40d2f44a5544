import type { Image, Layer, Store } from '../../index.js';
import type { Command } from '../command.js';
import { formatBytes, formatTable, shortID } from '../format.js';
import type { HistoryJson } from '../json.js';
import { needImage } from '../resolve.js';

export const history: Command = {
  name: 'history',
  summary: 'show how an image was made, newest step first',
  usage: 'IMAGE [--no-trunc]',
  details: 'Steps that made no layer have no size. --no-trunc shows commands and ids in full.',
  examples: ['layerstore history debian:12'],
  options: { 'no-trunc': { type: 'boolean' } },
  positionals: [1, 1],
  completes: ['image'],
  async run(context, [id = ''], values) {
    const image = await needImage(await context.images('read'), id);
    const value = await steps(await context.store('read'), image);
    const whole = values.flag('no-trunc');
    context.terminal.result(value, () =>
      formatTable(
        [
          { title: 'LAYER' },
          { title: 'CREATED' },
          { title: 'CREATED BY', flexible: !whole },
          { title: 'SIZE', right: true },
          { title: 'COMMENT', flexible: !whole },
        ],
        value.map((step) => [
          step.chainID === undefined ? '' : whole ? step.chainID : shortID(step.chainID),
          step.created?.slice(0, 19).replace('T', ' ') ?? '',
          (step.createdBy ?? '').replaceAll(/\s+/g, ' '),
          step.size === undefined ? '' : formatBytes(step.size),
          (step.comment ?? '').replaceAll(/\s+/g, ' '),
        ]),
        whole ? Infinity : context.terminal.columns,
      ),
    );
  },
};

/** One step an entry of the configuration's history; layers that it does not tell of come last in time. */
async function steps(store: Store, image: Image): Promise<HistoryJson> {
  const layers: Layer[] = [];
  for (let layer = image.chainID && store.map().get(image.chainID); layer !== undefined; layer = layer.parent)
    layers.unshift(layer);
  const found: HistoryJson = [];
  for (const entry of historyOf(image)) {
    const layer = entry['empty_layer'] === true ? undefined : layers.shift();
    found.push({
      ...text('created', entry['created']),
      ...text('createdBy', entry['created_by']),
      ...text('comment', entry['comment']),
      ...(layer === undefined ? {} : { chainID: layer.chainID, size: await layer.diffSize() }),
    });
  }
  for (const layer of layers) found.push({ chainID: layer.chainID, size: await layer.diffSize() });
  return found.reverse();
}

/** The entries of the configuration, which somebody else wrote: what is no object is left out. */
function historyOf({ config }: Image): Record<string, unknown>[] {
  const entries: unknown = config.history;
  if (!Array.isArray(entries)) return [];
  return (entries as unknown[]).filter(
    (each): each is Record<string, unknown> => typeof each === 'object' && each !== null,
  );
}

function text<K extends string>(key: K, value: unknown): { [key in K]?: string } {
  return (typeof value === 'string' && value !== '' ? { [key]: value } : {}) as { [key in K]?: string };
}
