import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { emptyLayer, type Store } from '../../index.js';
import { systemError } from '../../errors.js';
import { writeChunks, writeTarget } from '../../util/write-target.js';
import type { Command } from '../command.js';
import { formatBytes, formatDuration, formatRate } from '../format.js';
import type { ExportJson } from '../json.js';
import { resolveTarget, TARGET_TYPES, type Target } from '../resolve.js';
import { UsageError } from '../usage-error.js';

export const exportTar: Command = {
  name: 'export',
  summary: "write a tar: a layer's own, an image's whole tree",
  usage: '[--type rw|layer|image] CHAINID or IMAGE or NAME [-o FILE]',
  details:
    'CHAINID: the tar that was registered, byte for byte and verified.\n' +
    'IMAGE: its root file system. NAME: the changes of an RW layer, as a layer.',
  examples: ['layerstore export 3f8a1c20 -o layer.tar', 'layerstore export debian:12 | tar -t'],
  options: { output: { type: 'string', short: 'o' }, type: { type: 'string' } },
  positionals: [1, 1],
  completes: ['layer', 'image', 'rw'],
  async run(context, [id = ''], values) {
    const { terminal, signal } = context;
    const output = values.text('output');
    if (output === undefined && terminal.output.isTTY === true) {
      throw new UsageError('export needs -o FILE or a pipe: a tar is not for a terminal');
    }
    const type = values.oneOf('type', TARGET_TYPES);
    const store = await context.store('read');
    const target = await resolveTarget(store, () => context.images('read'), id, type);
    if (output === undefined) {
      await pipeline(await tarOf(store, target), terminal.output, { signal, end: false });
      return;
    }
    const started = performance.now();
    const value = await writeTar(store, target, output, signal);
    const elapsed = performance.now() - started;
    if (terminal.interactive) {
      const { bytes } = value;
      terminal.note(`${formatBytes(bytes)} in ${formatDuration(elapsed)}, ${formatRate(bytes, elapsed)}`);
    }
    terminal.result(value, () => '');
  },
};

async function tarOf(store: Store, target: Target): Promise<Readable> {
  if (target.type === 'layer') return (await store.get(target.chainID)).tarStream();
  if (target.type === 'rw') return (await store.getRWLayer(target.info.name)).tarStream();
  const { chainID } = target.image;
  return chainID === undefined ? emptyLayer.tarStream() : (await store.get(chainID)).tarStreamFrom();
}

async function writeTar(store: Store, target: Target, path: string, signal: AbortSignal): Promise<ExportJson> {
  if (target.type === 'layer') {
    const { bytes, diffID } = await (await store.get(target.chainID)).exportTo({ path }, { signal });
    return { bytes, diffID };
  }
  let bytes = 0;
  async function* counted(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      bytes += chunk.length;
      yield chunk;
    }
  }
  try {
    await writeTarget(path, false, async ({ fd }) => writeChunks(fd, counted(await tarOf(store, target)), signal));
  } catch (error) {
    throw systemError(error, 'write the export to', 'choose a place that can be written to');
  }
  return { bytes };
}
