/** The trials as data: what is compared with what, on which input. Nothing runs here. */
import { execFile, execFileSync } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CommandContestant, EngineContestant, findCommand, type Contestant } from './contestants.js';
import type { Form, Input } from './inputs.js';
import type { Parameters } from './operation.js';

const execute = promisify(execFile);

export interface Trial {
  /** `register plain: base` */
  name: string;
  group: string;
  /** Runs of each contestant. */
  runs: number;
  contestants: readonly Contestant[];
  /** What the others are given in ratios of. */
  reference: string;
  /** Shown in the overview. */
  headline?: boolean;
  /** What `rate` of a sample counts, where the trial has one. */
  rateUnit?: string;
  /** A new file system before each run, not only before the first: for runs that make trees and start from nothing. */
  renew?: boolean;
  /** Makes what is read, before the first run. */
  inputs: readonly (() => Promise<void>)[];
}

export interface Maker {
  /** Kept for the whole run. */
  scratch: string;
  /** Where contestants work: {@link FreshDisk.path}. */
  disk: string;
  engines: readonly ('native' | 'js')[];
  runs: number;
}

type Partially = Partial<Parameters> & { tars: readonly string[] };

let serial = 0;

/** One contestant, or none where the engine takes no part. */
function engine(maker: Maker, operation: string, parameters: Partially, label?: string): Contestant[] {
  const { engine: name = 'native' } = parameters;
  if (!maker.engines.includes(name)) return [];
  const scratch = join(maker.disk, `w${serial++}`);
  const prepare = maker.engines[0] ?? name;
  return [
    new EngineContestant(operation, { durability: 'relaxed', scratch, prepare, ...parameters, engine: name }, label),
  ];
}

function both(maker: Maker, operation: string, parameters: Partially): Contestant[] {
  return (['native', 'js'] as const).flatMap((name) => engine(maker, operation, { ...parameters, engine: name }));
}

function command(
  maker: Maker,
  name: string,
  bytes: () => Promise<number>,
  words: (path: string, directory: string) => readonly string[],
  prepare?: (directory: string) => Promise<unknown>,
): Contestant[] {
  const path = findCommand(name);
  if (path === undefined) return [];
  const scratch = join(maker.disk, `c${serial++}`);
  return [new CommandContestant(name, scratch, bytes, (directory) => words(path, directory), prepare)];
}

const made = (inputs: readonly Input[], ...forms: Form[]): (() => Promise<void>)[] =>
  inputs.flatMap((input) => forms.map((form) => () => input.make(form)));

function registerTrials(maker: Maker, inputs: readonly Input[]): Trial[] {
  return inputs.flatMap((input) => {
    const { paths, name, small } = input;
    const bytes = (): Promise<number> => input.bytes();
    const tar = (form: 'plain' | 'gzip' | 'zstd'): Contestant[] =>
      command(maker, 'tar', bytes, (path) => [path, '--xattrs', '-xf', paths[form]]);
    const bsdtar = command(maker, 'bsdtar', bytes, (path) => [path, '-xpf', paths.plain]);
    const umoci = command(maker, 'umoci', bytes, (path, directory) => [
      path,
      'raw',
      'unpack',
      '--image',
      `${paths.oci}:layer`,
      join(directory, 'rootfs'),
    ]);
    const trial = (form: 'plain' | 'gzip' | 'zstd', label: string, contestants: readonly Contestant[]): Trial => ({
      name: `register ${label}: ${name}`,
      group: 'register',
      renew: true,
      runs: maker.runs,
      contestants: [...tar(form), ...contestants],
      reference: 'tar',
      inputs: made([input], 'plain', form),
    });
    const register = (form: 'plain' | 'gzip' | 'zstd', more: Partial<Parameters> = {}): Partially => ({
      tars: [paths[form]],
      ...more,
    });
    const gzip = trial('gzip', 'gzip', [...both(maker, 'register', register('gzip')), ...umoci]);
    return [
      { ...trial('plain', 'plain', [...both(maker, 'register', register('plain')), ...bsdtar]), headline: small },
      trial('plain', 'plain, strict', both(maker, 'register', register('plain', { durability: 'strict' }))),
      {
        ...gzip,
        headline: small,
        inputs: made([input], 'plain', 'gzip', ...(umoci.length > 0 ? (['oci'] as const) : [])),
      },
      trial('zstd', 'zstd', both(maker, 'register', register('zstd'))),
    ];
  });
}

function readTrials(maker: Maker, inputs: readonly Input[]): Trial[] {
  return inputs.flatMap((input): Trial[] => {
    const { paths, name, small } = input;
    const bytes = (): Promise<number> => input.bytes();
    const openssl = (): Contestant[] =>
      command(maker, 'openssl', bytes, (path) => [path, 'dgst', '-sha256', paths.plain]);
    const common = { runs: maker.runs, reference: 'openssl' };
    const tars = [paths.plain];
    return [
      {
        ...common,
        name: `export, verified: ${name}`,
        group: 'export',
        headline: small,
        contestants: [
          ...openssl(),
          ...engine(maker, 'exportToDescriptor', { tars }, 'native to a descriptor'),
          ...engine(maker, 'exportStream', { tars }, 'native to a Readable'),
          ...engine(maker, 'exportStream', { tars, engine: 'js' }, 'js to a Readable'),
        ],
        inputs: made([input], 'plain'),
      },
      {
        ...common,
        name: `export to a file: ${name}`,
        group: 'export',
        contestants: [
          ...command(
            maker,
            'tar',
            bytes,
            (path) => [path, '--xattrs', '-cf', 'out.tar', 'tree'],
            async (directory) => {
              await mkdir(join(directory, 'tree'));
              await execute('tar', ['--xattrs', '-xf', paths.plain, '-C', join(directory, 'tree')]);
            },
          ),
          ...engine(maker, 'exportToFile', { tars }, 'native, verified'),
        ],
        reference: 'tar',
        inputs: made([input], 'plain'),
      },
      {
        ...common,
        name: `hash plain: ${name}`,
        group: 'hash',
        contestants: [...openssl(), ...both(maker, 'hash', { tars })],
        inputs: made([input], 'plain'),
      },
      {
        ...common,
        name: `hash gzip: ${name}`,
        group: 'hash',
        headline: !small && name !== 'mixed',
        contestants: [
          ...command(maker, 'gzip', bytes, (path) => [path, '-dc', paths.gzip]),
          ...command(maker, 'igzip', bytes, (path) => [path, '-dc', paths.gzip]),
          ...openssl(),
          ...both(maker, 'hash', { tars: [paths.gzip] }),
        ],
        inputs: made([input], 'plain', 'gzip'),
      },
    ];
  });
}

/** The kernel's part of an RW layer's life, from C; left out where there is no compiler. */
function bareKernel(maker: Maker, lowers: number, count: number): Contestant[] {
  const compiler = findCommand('cc');
  if (compiler === undefined) return [];
  const program = join(maker.scratch, 'bare-overlay');
  execFileSync(compiler, ['-O2', '-o', program, join(import.meta.dirname, 'bare-overlay.c')]);
  const words = (directory: string): readonly string[] => [program, directory, String(lowers), String(count)];
  return [
    new CommandContestant('bare kernel calls', join(maker.disk, `c${serial++}`), () => Promise.resolve(0), words),
  ];
}

const CYCLES = 100;
/** Enough that the start of all at once is not most of what is measured. */
const FLIGHT_CYCLES = 640;
const MANY = 5000;
const FILES = 100_000;
/** The tree of the operation `releaseMany`. */
const MANY_FILES = `d=0; while [ $d -lt ${FILES / 1000} ]; do mkdir d$d; (cd d$d; seq -f f%.0f $((d*1000)) $((d*1000+999)) | xargs touch); d=$((d+1)); done`;

/** `rm -rf` of a tree that `words` make in their working directory. */
function removal(maker: Maker, words: readonly string[]): Contestant[] {
  const fill = async (directory: string): Promise<void> => {
    const [program = '', ...args] = words;
    await mkdir(join(directory, 'tree'));
    await execute(program, args, { cwd: join(directory, 'tree') });
  };
  const remove = (directory: string): readonly string[] => ['rm', '-rf', join(directory, 'tree')];
  return [new CommandContestant('rm -rf', join(maker.disk, `c${serial++}`), () => Promise.resolve(0), remove, fill)];
}

function layerTrials(maker: Maker, inputs: readonly Input[]): Trial[] {
  const tars = inputs.map(({ paths }) => paths.plain);
  const plain = made(inputs, 'plain');
  const files = inputs.find(({ small }) => small) ?? inputs[0];
  const one = (name: string, operation: string, parameters: Partially): Trial => ({
    name,
    group: 'RW layers',
    runs: maker.runs,
    contestants: both(maker, operation, parameters),
    reference: maker.engines[0] ?? 'native',
    inputs: plain,
  });
  const cycle = (label: string, more: Partial<Parameters>): Contestant[] =>
    engine(maker, 'rwCycle', { tars, count: CYCLES, ...more }, label);
  const flight = (durability: 'relaxed' | 'strict'): Trial => ({
    name: `the same ${FLIGHT_CYCLES} times, ${durability}`,
    group: 'RW layers',
    runs: maker.runs,
    rateUnit: '/s',
    contestants: [
      ...cycle('native, one at a time', { durability, count: FLIGHT_CYCLES }),
      ...cycle('native, 64 in flight', { durability, count: FLIGHT_CYCLES, inFlight: 64 }),
    ],
    reference: 'native, one at a time',
    inputs: plain,
  });
  const trials: Trial[] = [
    {
      name: `create + mount + unmount + release, ${CYCLES} times`,
      group: 'RW layers',
      runs: maker.runs,
      headline: true,
      rateUnit: '/s',
      contestants: [
        ...bareKernel(maker, tars.length, CYCLES),
        ...cycle('native, relaxed', {}),
        ...cycle('native, strict', { durability: 'strict' }),
        ...cycle('js, relaxed', { engine: 'js' }),
      ],
      reference: 'bare kernel calls',
      inputs: plain,
    },
    flight('relaxed'),
    flight('strict'),
    one('changes: 1,000 written, 500 removed', 'changes', { tars }),
    one('size of the same', 'rwSize', { tars }),
    { ...one('tar of the same', 'rwTar', { tars }), headline: true },
    { ...one('commit of the same', 'commit', { tars }), headline: true },
    { ...one('registerChain of all layers', 'registerChain', { tars }), group: 'register', renew: true },
    {
      ...one(`open a store of ${MANY.toLocaleString('en')} layers`, 'openMany', {
        tars: [],
        count: MANY,
        scratch: join(maker.disk, 'many'),
      }),
      group: 'store',
      inputs: [],
    },
  ];
  const unlinked = { group: 'store', renew: true, reference: 'rm -rf', rateUnit: ' ms until the call resolved' };
  if (files !== undefined) {
    const tar = files.paths.plain;
    const remove = one(`remove: ${files.name}`, 'remove', { tars: [tar] });
    const contestants = [...removal(maker, ['tar', '-xf', tar]), ...remove.contestants];
    trials.push({ ...remove, ...unlinked, contestants, inputs: made([files], 'plain') });
  }
  const release = one(`releaseRWLayer of ${FILES.toLocaleString('en')} files`, 'releaseMany', {
    tars: [],
    count: FILES,
  });
  const contestants = [...removal(maker, ['sh', '-euc', MANY_FILES]), ...release.contestants];
  trials.push({ ...release, ...unlinked, contestants, inputs: [] });
  return trials;
}

export function allTrials(maker: Maker, inputs: readonly Input[]): Trial[] {
  return [...registerTrials(maker, inputs), ...readTrials(maker, inputs), ...layerTrials(maker, inputs)];
}
