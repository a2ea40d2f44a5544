import type { ContainerConfig, Layer } from '../../index.js';
import { UsageError } from '../usage-error.js';
import type { Command, Context } from '../command.js';
import { imageJson } from '../json.js';
import { ProgressDisplay, tarProgress } from '../progress.js';
import { needImage, needRWLayer, resolveTarget } from '../resolve.js';
import type { Values } from '../values.js';

export const buildImage: Command = {
  name: 'build-image',
  summary: 'make an image out of an RW layer or a layer',
  usage: '[--base IMAGE] [--name NAME]… [OPTION]… [BOX or CHAINID]',
  details: [
    'An RW layer is committed first. Without BOX or CHAINID the image has the layers of its base. Prints its id.',
    '--base IMAGE: its configuration and history are where this one begins; the layer must stand on it.',
    '--cmd, --entrypoint: a JSON list of words, or a line for /bin/sh. --entrypoint drops the --cmd of the base.',
    '--env NAME=VALUE, --label NAME=VALUE: one more, or another value. --expose PORT[/udp], --volume PATH: one more.',
    '--workdir PATH, --user USER, --stop-signal NAME, --platform OS/ARCH, --comment TEXT.',
    '--created DATE makes it reproducible: the same options on the same layers give the same id.',
  ].join('\n'),
  examples: [
    'layerstore build-image --base debian:12 --cmd \'["/usr/bin/app"]\' --env PORT=80 --name app:1 box',
    "layerstore build-image --base app:1 --label stage=test --name app:test --created '2024-01-01T00:00:00Z'",
  ],
  options: {
    base: { type: 'string' },
    name: { type: 'string', multiple: true },
    cmd: { type: 'string' },
    entrypoint: { type: 'string' },
    env: { type: 'string', multiple: true },
    label: { type: 'string', multiple: true },
    expose: { type: 'string', multiple: true },
    volume: { type: 'string', multiple: true },
    workdir: { type: 'string' },
    user: { type: 'string' },
    'stop-signal': { type: 'string' },
    platform: { type: 'string' },
    comment: { type: 'string' },
    created: { type: 'string' },
  },
  positionals: [0, 1],
  completes: ['rw', 'layer'],
  async run(context, [layer], values) {
    const base = values.text('base');
    if (base === undefined && layer === undefined)
      throw new UsageError('build-image needs --base IMAGE, or an RW layer or a layer to make the image of');
    const created = date(values.text('created'));
    const asked = options(values);
    const images = await context.images('change');
    const from = base === undefined ? undefined : await needImage(images, base);
    const config = merge(from?.config.config ?? {}, asked);
    const top = layer === undefined ? undefined : await takeLayer(context, layer);
    try {
      const given = { platform: values.text('platform'), comment: values.text('comment'), created };
      const parts = { base: from?.id, chainID: top?.chainID };
      const image = await images.create({ config, names: values.list('name'), ...definedOnly({ ...given, ...parts }) });
      context.terminal.result(imageJson(image), () => image.id);
    } finally {
      // The image keeps the layer. Where there is none, what was committed for it goes.
      if (top !== undefined) await (await context.store('change')).release(top);
    }
  },
};

/** A handle on the layer that is meant. */
async function takeLayer(context: Context, text: string): Promise<Layer> {
  const store = await context.store('change');
  const target = await resolveTarget(store, () => context.images('change'), text);
  if (target.type === 'layer') return store.get(target.chainID);
  if (target.type === 'image')
    throw new UsageError(`"${text}" is an image: give it as --base, with an RW layer or a layer that stands on it`);
  const { rw } = await needRWLayer(store, target.info.name);
  const display = new ProgressDisplay(context.terminal, 'build-image');
  const layer = await store.commit(rw, {
    signal: context.signal,
    onProgress: tarProgress(display, 'commit', 'Copying'),
  });
  display.end();
  return layer;
}

interface Asked {
  readonly replaced: ContainerConfig;
  readonly env: readonly (readonly [string, string])[];
  readonly labels: readonly (readonly [string, string])[];
  readonly ports: readonly string[];
  readonly volumes: readonly string[];
}

function options(values: Values): Asked {
  return {
    replaced: definedOnly({
      Cmd: command('cmd', values.text('cmd')),
      Entrypoint: command('entrypoint', values.text('entrypoint')),
      WorkingDir: values.text('workdir'),
      User: values.text('user'),
      StopSignal: values.text('stop-signal'),
    }),
    env: values.list('env').map((text) => pair('env', text)),
    labels: values.list('label').map((text) => pair('label', text)),
    ports: values.list('expose').map((port) => (port.includes('/') ? port : `${port}/tcp`)),
    volumes: values.list('volume'),
  };
}

/** What is asked for on top of what the base says, as a Dockerfile would have it. */
function merge(base: ContainerConfig, { replaced, env, labels, ports, volumes }: Asked): ContainerConfig {
  const config: ContainerConfig = { ...replaced };
  // Arguments for the base's entry point are none for the new one.
  if (config.Entrypoint !== undefined && config.Cmd === undefined && base.Cmd !== undefined) config.Cmd = [];
  if (env.length > 0) {
    const named = new Set(env.map(([name]) => name));
    const kept = (base.Env ?? []).filter((entry) => !named.has(entry.split('=', 1)[0] as string));
    config.Env = [...kept, ...env.map(([name, value]) => `${name}=${value}`)];
  }
  if (labels.length > 0) config.Labels = { ...base.Labels, ...Object.fromEntries(labels) };
  const set = (names: readonly string[]): Record<string, object> => Object.fromEntries(names.map((name) => [name, {}]));
  if (ports.length > 0) config.ExposedPorts = { ...base.ExposedPorts, ...set(ports) };
  if (volumes.length > 0) config.Volumes = { ...base.Volumes, ...set(volumes) };
  return config;
}

function pair(option: string, text: string): readonly [string, string] {
  const at = text.indexOf('=');
  if (at < 1) throw new UsageError(`--${option} takes NAME=VALUE, not "${text}"`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** As in a Dockerfile: a JSON list of words is run as it is, anything else by a shell. */
function command(option: string, text: string | undefined): string[] | undefined {
  if (text === undefined) return undefined;
  if (!text.trimStart().startsWith('[')) return ['/bin/sh', '-c', text];
  let words: unknown;
  try {
    words = JSON.parse(text);
  } catch {
    // Told below: it is no list of words.
  }
  if (!Array.isArray(words) || !words.every((word) => typeof word === 'string'))
    throw new UsageError(`--${option} takes a JSON list of words like ["sh","-c","x"], or a line for /bin/sh`);
  return words;
}

function date(text: string | undefined): Date | undefined {
  if (text === undefined) return undefined;
  const found = new Date(text);
  if (Number.isNaN(found.getTime()))
    throw new UsageError(`--created takes a date like 2024-01-31T12:00:00Z, not "${text}"`);
  return found;
}

function definedOnly<T extends object>(members: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}
