/** Pulling: this package beside skopeo, Docker and containerd, from one registry, and beside loading the same image. */
import { join } from 'node:path';
import { EngineContestant, findCommand, type Contestant } from './contestants.js';
import { ServedContestant } from './daemon.js';
import type { ImageArchive } from './image-archive.js';
import { containerd, dockerd } from './image-trials.js';
import { MANY, type LocalRegistry } from './registry.js';
import type { Maker, Trial } from './trials.js';

export function pullTrials({ disk, engines, runs }: Maker, archive: ImageArchive, registry: LocalRegistry): Trial[] {
  if (findCommand('docker-registry') === undefined || !engines.includes('native')) return [];
  let serial = 0;
  const place = (): string => join(disk, `p${serial++}`);
  const ours = (operation: string, label: string, tars: readonly string[], count = 1): Contestant => {
    const parameters = { engine: 'native', durability: 'relaxed', scratch: place(), tars, count } as const;
    return new EngineContestant(operation, parameters, label);
  };
  const prepare = (): Promise<number> => archive.bytes();
  const { image } = registry;
  const peers = [
    {
      name: 'skopeo copy',
      programs: ['skopeo'],
      served: {
        work: (directory: string) => [
          ...['/usr/bin/env', 'skopeo', 'copy', '-q', '--src-tls-verify=false', `docker://${image}`],
          `containers-storage:[overlay@${directory}/root+${directory}/run]bench:1`,
        ],
      },
    },
    { name: 'docker pull', programs: ['docker', 'dockerd'], served: dockerd(['pull', '-q', image]) },
    {
      name: 'ctr images pull',
      programs: ['containerd', 'ctr'],
      served: containerd(['images', 'pull', '--plain-http', image]),
    },
  ].filter(({ programs }) => programs.every((name) => findCommand(name) !== undefined));
  const common = { group: 'pull', renew: true, runs } as const;
  return [
    {
      ...common,
      name: 'pull image: gzip layers',
      headline: true,
      inputs: [() => archive.make('gzip'), () => registry.withImage()],
      contestants: [
        ours('loadImage', 'layerstore, load of the same', [archive.paths.gzip]),
        ours('pullImages', 'layerstore, pull', [image]),
        ...peers.map(({ name, served }) => new ServedContestant(name, place(), prepare, served)),
      ],
      reference: 'layerstore, load of the same',
    },
    {
      ...common,
      name: 'fetch the biggest blob, 20 MB/s a connection',
      inputs: [() => registry.withCap()],
      contestants: [
        ours('fetchBiggest', 'one connection', [registry.cappedImage], 1),
        ours('fetchBiggest', 'by ranges', [registry.cappedImage], 6),
      ],
      reference: 'one connection',
    },
    {
      ...common,
      name: `pull ${MANY.images} images of ${MANY.megabytes} MiB at once`,
      inputs: [() => registry.withMany()],
      contestants: [ours('pullImages', 'layerstore, pull', registry.many)],
      reference: 'layerstore, pull',
    },
  ];
}
