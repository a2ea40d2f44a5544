import type { Command } from '../command.js';
import { formatBytes, formatTable } from '../format.js';

export const df: Command = {
  name: 'df',
  summary: 'disk use',
  usage: '',
  examples: ['layerstore df'],
  positionals: [0, 0],
  completes: [],
  async run(context) {
    const usage = await (await context.store('read')).usage();
    const { layers, rwLayers, snapshots, pendingRemoval, fileSystem } = usage;
    context.terminal.result(usage, () =>
      formatTable(
        [
          { title: 'WHAT' },
          { title: 'COUNT', right: true },
          { title: 'SIZE', right: true },
          { title: 'INODES', right: true },
        ],
        [
          ['layers', String(layers.count), formatBytes(layers.bytes), ''],
          ['RW layers', String(rwLayers.count), formatBytes(rwLayers.bytes), String(rwLayers.inodes)],
          ['snapshots', String(snapshots.count), formatBytes(snapshots.bytes), String(snapshots.inodes)],
          [
            'being removed',
            String(pendingRemoval.count),
            formatBytes(pendingRemoval.bytes),
            String(pendingRemoval.inodes),
          ],
          ['file system', '', formatBytes(fileSystem.bytes), String(fileSystem.inodes)],
          ['  free', '', formatBytes(fileSystem.bytesFree), String(fileSystem.inodesFree)],
        ],
        context.terminal.columns,
      ),
    );
  },
};
