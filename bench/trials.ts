/** The trials as data: what is compared with what, on which input. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { CommandContestant, EngineContestant, findCommand, type Contestant } from './contestants.js';
import type { Input } from './inputs.js';
import type { Parameters } from './operations.js';

export interface Trial {
  /** `register plain: base` */
  name: string;
  group: string;
  /** Runs of each contestant at the least; the median of fewer than 7 is for a quick look. */
  runs: number;
  contestants: readonly Contestant[];
  /** What the others are given in ratios of. */
  reference: string;
}

interface Maker {
  scratch: string;
  /** The pure-JavaScript engine takes long on big inputs: left out of a quick run. */
  withJs: boolean;
  runs: number;
}

let serial = 0;

function engine(
  maker: Maker,
  operation: string,
  parameters: Partial<Parameters> & { tars: readonly string[] },
  label?: string,
): Contestant {
  return new EngineContestant(
    operation,
    { engine: 'native', durability: 'relaxed', scratch: join(maker.scratch, `w${serial++}`), ...parameters },
    label,
  );
}

function both(
  maker: Maker,
  operation: string,
  parameters: Partial<Parameters> & { tars: readonly string[] },
): Contestant[] {
  const native = engine(maker, operation, parameters);
  return maker.withJs ? [native, engine(maker, operation, { ...parameters, engine: 'js' })] : [native];
}

function command(
  maker: Maker,
  name: string,
  bytes: number,
  words: (path: string, directory: string) => readonly string[],
): Contestant[] {
  const path = findCommand(name);
  if (path === undefined) return [];
  return [
    new CommandContestant(name, join(maker.scratch, `c${serial++}`), bytes, (directory) => words(path, directory)),
  ];
}

function registerTrials(maker: Maker, inputs: readonly Input[]): Trial[] {
  return inputs.flatMap((input) => {
    const tar = command(maker, 'tar', input.bytes, (path) => [path, '--xattrs', '-xf', input.plain]);
    const bsdtar = (): Contestant[] => command(maker, 'bsdtar', input.bytes, (path) => [path, '-xpf', input.plain]);
    const trial = (form: string, contestants: readonly Contestant[]): Trial => ({
      name: `register ${form}: ${input.name}`,
      group: 'register',
      runs: maker.runs,
      contestants: [...tar, ...contestants],
      reference: 'tar',
    });
    return [
      trial('plain', [...both(maker, 'register', { tars: [input.plain] }), ...bsdtar()]),
      trial('plain, strict', [engine(maker, 'register', { tars: [input.plain], durability: 'strict' })]),
      trial('gzip', both(maker, 'register', { tars: [input.gzip] })),
      trial('zstd', both(maker, 'register', { tars: [input.zstd] })),
    ];
  });
}

function readTrials(maker: Maker, inputs: readonly Input[]): Trial[] {
  const openssl = (input: Input): Contestant[] =>
    command(maker, 'openssl', input.bytes, (path) => [path, 'dgst', '-sha256', input.plain]);
  return inputs.flatMap((input): Trial[] => [
    {
      name: `export, verified: ${input.name}`,
      group: 'export',
      runs: maker.runs,
      contestants: [
        ...openssl(input),
        engine(maker, 'exportToDescriptor', { tars: [input.plain] }, 'native to a descriptor'),
        engine(maker, 'exportStream', { tars: [input.plain] }, 'native to a Readable'),
        ...(maker.withJs
          ? [engine(maker, 'exportStream', { tars: [input.plain], engine: 'js' }, 'js to a Readable')]
          : []),
      ],
      reference: 'openssl',
    },
    {
      name: `hash plain: ${input.name}`,
      group: 'hash',
      runs: maker.runs,
      contestants: [...openssl(input), ...both(maker, 'hash', { tars: [input.plain] })],
      reference: 'openssl',
    },
    {
      name: `hash gzip: ${input.name}`,
      group: 'hash',
      runs: maker.runs,
      contestants: [
        ...command(maker, 'igzip', input.bytes, (path) => [path, '-dc', input.gzip]),
        ...openssl(input),
        ...both(maker, 'hash', { tars: [input.gzip] }),
      ],
      reference: 'openssl',
    },
  ]);
}

/** The kernel's part of an RW layer's life, from C; left out where there is no compiler. */
function bareKernel(maker: Maker, lowers: number, count: number): Contestant[] {
  const compiler = findCommand('cc');
  if (compiler === undefined) return [];
  const program = join(maker.scratch, 'bare-overlay');
  execFileSync(compiler, ['-O2', '-o', program, join(import.meta.dirname, 'bare-overlay.c')]);
  const words = (directory: string): readonly string[] => [program, directory, String(lowers), String(count)];
  return [new CommandContestant('bare kernel calls', join(maker.scratch, `c${serial++}`), 0, words)];
}

function layerTrials(maker: Maker, inputs: readonly Input[]): Trial[] {
  const tars = inputs.map((input) => input.plain);
  const small = inputs.reduce((a, b) => (a.bytes < b.bytes ? a : b));
  const files = inputs.find((input) => /node_modules|small/.test(input.name)) ?? small;
  const one = (
    name: string,
    operation: string,
    parameters: Partial<Parameters> & { tars: readonly string[] },
  ): Trial => ({
    name,
    group: 'RW layers',
    runs: maker.runs,
    contestants: both(maker, operation, parameters),
    reference: 'native',
  });
  const cycle = (label: string, more: Partial<Parameters>): Contestant =>
    engine(maker, 'rwCycle', { tars, count: 200, ...more }, label);
  return [
    {
      name: 'create + mount + unmount + release, 200 times',
      group: 'RW layers',
      runs: maker.runs,
      contestants: [
        ...bareKernel(maker, tars.length, 200),
        cycle('native, relaxed', {}),
        cycle('native, strict', { durability: 'strict' }),
        cycle('native, 64 in flight', { inFlight: 64 }),
        ...(maker.withJs ? [cycle('js, relaxed', { engine: 'js', count: 50 })] : []),
      ],
      reference: 'bare kernel calls',
    },
    one('changes: 1,000 written, 500 removed', 'changes', { tars }),
    one('size of the same', 'rwSize', { tars }),
    one('tar of the same', 'rwTar', { tars }),
    one('commit of the same', 'commit', { tars }),
    { ...one('registerChain of all layers', 'registerChain', { tars }), group: 'register' },
    { ...one('open a store of 5,000 layers', 'openMany', { tars: [], count: 5000 }), group: 'store' },
    { ...one(`remove: ${files.name}`, 'remove', { tars: [files.plain] }), group: 'store' },
  ];
}

export function allTrials(maker: Maker, inputs: readonly Input[]): Trial[] {
  return [...registerTrials(maker, inputs), ...readTrials(maker, inputs), ...layerTrials(maker, inputs)];
}
