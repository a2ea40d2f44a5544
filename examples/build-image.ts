/**
 * A build tool: a recipe becomes an image archive. Each RUN is a command in a writable layer, and what it changed becomes
 * a layer of the image. With SOURCE_DATE_EPOCH set, the image says that date.
 *
 *   node --import tsx examples/build-image.ts ROOT RECIPE OUT.tar
 *
 *   FROM debian.tar                      an image archive
 *   ENV GREETING=hello
 *   RUN echo $GREETING > /etc/motd
 *   LABEL stage=test
 *   CMD ["/bin/cat", "/etc/motd"]        and ENTRYPOINT, WORKDIR, USER, NAME app:1
 */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { openImages, openStore, type ChainID, type ContainerConfig, type Layer, type Store } from 'layerstore';

const execute = promisify(execFile);
const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
// Namespaces of its own: no process of a command outlives it, none sees the host's. Commands of strangers need more: a
// user namespace, limits, a filter of system calls; give the mounted root to a container runtime for these.
const ISOLATION = ['--mount', '--pid', '--ipc', '--uts', '--fork', '--kill-child'];

/** Runs one command on `parent`; its changes as a layer. */
async function runStep(
  store: Store,
  parent: ChainID | undefined,
  command: string,
  env: readonly string[],
): Promise<Layer> {
  const box = await store.createRWLayer(`build-${process.pid}-${performance.now().toFixed(3)}`, parent);
  try {
    const root = await box.mount();
    try {
      const variables = Object.fromEntries([PATH, ...env].map((text) => text.split(/=(.*)/s) as [string, string]));
      const { stdout } = await execute('unshare', [...ISOLATION, `--root=${root}`, '/bin/sh', '-ec', command], {
        env: variables,
      });
      process.stdout.write(`RUN ${command}\n${stdout}`);
    } finally {
      await box.unmount();
    }
    return await store.commit(box);
  } finally {
    await store.releaseRWLayer(box);
  }
}

async function build(root: string, recipe: string, out: string): Promise<void> {
  const lines = (await readFile(recipe, 'utf8')).split('\n').filter((line) => /^\s*[^#\s]/.test(line));
  const store = await openStore({ root });
  const made: Layer[] = []; // handles: a layer that nobody holds is removed
  try {
    const images = await openImages(store);
    const [, from] = /^FROM (.+)$/.exec(lines.shift() ?? '') ?? [];
    if (from === undefined) throw new Error('a recipe begins with FROM ARCHIVE');
    const [base] = await images.load({ path: from });
    if (base === undefined) throw new Error(`${from} holds no image`);
    const names: string[] = [];
    const inherited = base.config.config ?? {};
    const config = { Env: inherited.Env ?? [PATH], Labels: inherited.Labels ?? {} } satisfies ContainerConfig;
    const members: ContainerConfig = {};
    for (const line of lines) {
      const [, instruction = '', rest = ''] = /^\s*(\S+)\s+(.*)$/.exec(line) ?? [];
      const [name = '', value] = rest.split(/=(.*)/s);
      if (instruction === 'RUN')
        made.push(await runStep(store, made.at(-1)?.chainID ?? base.chainID, rest, config.Env));
      else if (instruction === 'ENV') config.Env = [...config.Env.filter((text) => !text.startsWith(`${name}=`)), rest];
      else if (instruction === 'LABEL') config.Labels = { ...config.Labels, [name]: value ?? '' };
      else if (instruction === 'CMD') members.Cmd = JSON.parse(rest) as string[];
      else if (instruction === 'ENTRYPOINT') members.Entrypoint = JSON.parse(rest) as string[];
      else if (instruction === 'WORKDIR') members.WorkingDir = rest;
      else if (instruction === 'USER') members.User = rest;
      else if (instruction === 'NAME') names.push(rest);
      else throw new Error(`no instruction is called ${JSON.stringify(instruction)}`);
    }
    const epoch = process.env['SOURCE_DATE_EPOCH'];
    const image = await images.create({
      base: base.id,
      config: { ...config, ...members },
      names,
      ...(made.length === 0 ? {} : { chainID: (made.at(-1) as Layer).chainID }),
      ...(epoch === undefined ? {} : { created: new Date(Number(epoch) * 1000) }),
    });
    await images.save(names[0] ?? image.id, { path: out }, { compression: 'gzip' });
    console.log(`image ${image.id}`);
  } finally {
    for (const layer of made) await store.release(layer); // the image keeps its layers
    await store.close();
  }
}

const [root, recipe, out] = process.argv.slice(2);
if (root === undefined || recipe === undefined || out === undefined)
  throw new Error('usage: build-image.ts ROOT RECIPE OUT.tar');
await build(root, recipe, out);
