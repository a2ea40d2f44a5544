/** Loading an image: this package beside Docker, podman and containerd, each on a store of its own that is fresh every run. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EngineContestant, findCommand, type Contestant } from './contestants.js';
import { ServedContestant, type Served } from './daemon.js';
import type { ArchiveForm, ImageArchive } from './image-archive.js';
import type { Maker, Trial } from './trials.js';

const FORMS: Readonly<Record<ArchiveForm, string>> = { plain: 'uncompressed', gzip: 'gzip layers' };

export function imageTrials({ disk, engines, runs }: Maker, archive: ImageArchive): Trial[] {
  let serial = 0;
  const place = (): string => join(disk, `i${serial++}`);
  return (['plain', 'gzip'] as const).map((form) => {
    const path = archive.paths[form];
    const prepare = async (): Promise<number> => {
      await archive.make(form);
      return archive.bytes();
    };
    const ours = (engine: 'native' | 'js', durability: 'strict' | 'relaxed'): Contestant[] => {
      if (!engines.includes(engine)) return [];
      const contestant = new EngineContestant(
        'loadImage',
        { engine, durability, scratch: place(), tars: [path] },
        `layerstore, ${engine}, ${durability}`,
      );
      return [contestant];
    };
    const peers = PEERS.filter(({ programs }) => programs.every((name) => findCommand(name) !== undefined)).map(
      ({ name, served }) => new ServedContestant(name, place(), prepare, served(path)),
    );
    return {
      name: `load image: ${FORMS[form]}`,
      group: 'images',
      renew: true,
      runs,
      headline: true,
      inputs: [(): Promise<void> => archive.make(form)],
      contestants: [...ours('native', 'strict'), ...ours('native', 'relaxed'), ...ours('js', 'relaxed'), ...peers],
      reference: `layerstore, ${engines[0] ?? 'native'}, ${engines[0] === 'js' ? 'relaxed' : 'strict'}`,
    };
  });
}

interface Peer {
  name: string;
  programs: readonly string[];
  served: (archive: string) => Served;
}

/** A dockerd of its own each run, and what its client is told to do. */
export function dockerd(command: readonly string[]): Served {
  const client = (directory: string): string[] => ['/usr/bin/env', 'docker', '-H', `unix://${directory}/s`];
  return {
    server: (directory) => [
      ...['dockerd', '--data-root', `${directory}/root`, '--exec-root', `${directory}/exec`],
      ...['-H', `unix://${directory}/s`, '-p', `${directory}/pid`],
      ...['--iptables=false', '--bridge=none', '--storage-driver', 'overlay2', '--log-level', 'error'],
    ],
    probe: (directory) => [...client(directory), 'version'],
    work: (directory) => [...client(directory), ...command],
  };
}

/** A containerd of its own each run, and what ctr is told to do. */
export function containerd(command: readonly string[]): Served {
  return {
    prepare: (directory) =>
      writeFile(join(directory, 'config.toml'), 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'),
    server: (directory) => [
      ...['containerd', '--config', `${directory}/config.toml`, '--root', `${directory}/root`],
      ...['--state', `${directory}/state`, '--address', `${directory}/s`, '--log-level', 'error'],
    ],
    probe: (directory) => ['ctr', '--address', `${directory}/s`, 'version'],
    work: (directory) => ['/usr/bin/env', 'ctr', '--address', `${directory}/s`, ...command],
  };
}

const PEERS: readonly Peer[] = [
  {
    name: 'docker load',
    programs: ['docker', 'dockerd'],
    served: (archive) => dockerd(['load', '-q', '-i', archive]),
  },
  {
    name: 'podman load',
    programs: ['podman'],
    served: (archive) => ({
      work: (directory) => [
        ...['/usr/bin/env', 'podman', '--root', `${directory}/root`, '--runroot', `${directory}/run`],
        ...['--tmpdir', `${directory}/tmp`, '--storage-driver', 'overlay', 'load', '-q', '-i', archive],
      ],
    }),
  },
  {
    name: 'ctr images import',
    programs: ['containerd', 'ctr'],
    served: (archive) => containerd(['images', 'import', archive]),
  },
];
