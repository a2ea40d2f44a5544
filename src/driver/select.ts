/** Opens a store's driver: the one that is asked for, the one that has layers under the root, or the best that works. */
import type { BatchOp, Engine, Privilege } from '../engine/engine.js';
import { invalidArgument, LayerStoreError, systemError } from '../errors.js';
import { errorFields, type LoggerLike } from '../util/logger.js';
import { makeDirectory } from '../util/make-directory.js';
import { formatValue } from '../util/quote.js';
import { inUserNamespace } from '../util/user-namespace.js';
import { adaptDriver } from './adapt.js';
import { type DriverContext, isLayerID } from './context.js';
import type { Driver } from './driver.js';
import { backingFileSystem, kernelFileSystems, overlayParameter } from './file-system.js';
import { hasDirectory, kindOf, namesIn } from './files.js';
import type { GraphDriver } from './graph-driver.js';
import { checkUserXattr, mountProfile, type Overlay2Options, parseDriverOptions } from './options.js';
import { Overlay2Driver, refuseSize } from './overlay2/driver.js';
import { Layout, LINK_DIRECTORY } from './overlay2/layout.js';
import { readPrivilege, whiteoutsOf, writePrivilege } from './privilege.js';
import { probeOverlay, sameFileSystem } from './probe.js';
import { isScratch } from './tree-removal.js';
import { VfsDriver, vfsHome } from './vfs/driver.js';

export interface OpenDriverOptions {
  /** An existing directory, absolute. */
  root: string;
  driver: 'overlay2' | 'vfs' | 'auto' | GraphDriver;
  driverOptions: Readonly<Record<string, string>>;
  engine: Engine;
  durability: 'strict' | 'relaxed';
  readOnly: boolean;
  acceptVolatile: boolean;
  logger: LoggerLike;
}

/** Where a driver keeps layers below the root. The last ones are Docker's: known, so that their layers are not overlooked. */
const HOMES: Readonly<Record<string, string>> = {
  overlay2: 'overlay2',
  vfs: 'vfs/dir',
  'fuse-overlayfs': 'fuse-overlayfs',
  btrfs: 'btrfs/subvolumes',
  zfs: 'zfs/graph',
};

/**
 * The store's driver. ERR_INVALID_ARGUMENT: unknown driver or option, or layers of several drivers under the root.
 * ERR_NOT_SUPPORTED: what is asked for, or has layers here, does not work here; the message says why.
 */
export async function openDriver(options: OpenDriverOptions): Promise<Driver> {
  const { driver, driverOptions } = options;
  if (typeof driver === 'object') {
    if (Object.keys(driverOptions).length === 0) return adaptDriver(driver, options);
    throw invalidArgument(`driverOptions are for drivers of this package: give them to "${driver.name}" itself`);
  }
  if (driver !== 'auto' && driver !== 'overlay2' && driver !== 'vfs') {
    throw invalidArgument(
      `there is no driver ${formatValue(driver)}: choose "overlay2", "vfs" or "auto", or give a GraphDriver`,
    );
  }
  const parsed = parseDriverOptions(driverOptions);
  const withState = await driversWithState(options.root);
  const namespace = inUserNamespace();
  const privilege = await privilegeOf(options.root, withState, namespace, parsed.ignoreChownErrors);
  if (privilege === 'namespace' && !namespace && !options.readOnly) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `the layers below "${options.root}" belong to a user namespace: change them there (\`layerstore unshare\`), or open the root with readOnly`,
    );
  }
  const context = (reason: string): DriverContext => ({
    root: options.root,
    engine: options.engine,
    durability: options.durability,
    readOnly: options.readOnly,
    acceptVolatile: options.acceptVolatile,
    logger: options.logger,
    privilege,
    ownersShifted: privilege === 'namespace' && !namespace,
    reason,
  });
  const vfs = (reason: string): Promise<Driver> => {
    const [unused] = Object.keys(driverOptions).filter((key) => key.toLowerCase() !== 'ignore_chown_errors');
    if (unused === undefined) return openVfs(context(reason));
    throw invalidArgument(`the driver option "${unused}" means nothing to the driver vfs (${reason}): leave it away`);
  };
  const overlay2 = async (reason: string): Promise<Driver> => {
    const opened = await tryOverlay2(context(reason), namespace, parsed);
    if (typeof opened !== 'string') return opened;
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `the driver overlay2 (${reason}) does not work under "${options.root}": ${opened}`,
    );
  };

  if (driver === 'overlay2') return overlay2('asked for');
  if (driver === 'vfs') return vfs('asked for');
  const [found, ...more] = withState;
  if (more.length > 0) {
    throw invalidArgument(
      `"${options.root}" holds layers of several drivers (${[found, ...more].join(', ')}): say which one to use`,
    );
  }
  if (found === 'overlay2') return overlay2('its layers are here');
  if (found === 'vfs') return vfs('its layers are here');
  if (found !== undefined) {
    throw new LayerStoreError(
      'ERR_NOT_SUPPORTED',
      `"${options.root}" holds layers of the driver ${found}, which this package does not have: choose another root, or a driver by name`,
    );
  }
  const opened = await tryOverlay2(
    context('the root was empty, and a trial mount of overlayfs worked'),
    namespace,
    parsed,
  );
  if (typeof opened !== 'string') return opened;
  options.logger.info({ root: options.root, why: opened }, 'overlay2 does not work here: using vfs');
  return vfs(`the root was empty, and overlay2 does not work: ${opened}`);
}

/** What the layers under a root are made with: as the root says, else, where it has none yet, as this process can. */
async function privilegeOf(
  root: string,
  withState: readonly string[],
  namespace: boolean,
  ignoreChownErrors: boolean,
): Promise<Privilege> {
  const marked = await readPrivilege(root);
  if (marked !== undefined) return marked;
  const ignore = ignoreChownErrors && (namespace || process.geteuid?.() !== 0);
  if (withState.length === 0) return ignore ? 'none' : namespace ? 'namespace' : 'full';
  if (!ignore) return 'full';
  throw new LayerStoreError(
    'ERR_INVALID_ARGUMENT',
    `cannot begin to ignore owners: "${root}" holds layers that have theirs; choose another root, or omit ignore_chown_errors`,
  );
}

/** Drivers that have layers under `root`. */
async function driversWithState(root: string): Promise<string[]> {
  const found: string[] = [];
  for (const [name, home] of Object.entries(HOMES)) {
    const layer = (entry: string): boolean => isLayerID(entry) && entry !== LINK_DIRECTORY;
    if (await hasDirectory(`${root}/${home}`, layer)) found.push(name);
  }
  return found;
}

/** The driver, or why it does not work here. */
async function tryOverlay2(
  context: DriverContext,
  namespace: boolean,
  parsed: Overlay2Options,
): Promise<Driver | string> {
  const { root, engine, readOnly, privilege } = context;
  const layout = new Layout(root);
  const user = privilege !== 'full';
  if (!user && !readOnly && namespace) {
    return 'its layers have attributes of trusted.*, which no user namespace can set or see: open it as root of the machine, or choose another root';
  }
  if (user) checkUserXattr(parsed.mountOptions);
  const known = await kernelFileSystems();
  const [index, metacopy, redirects] = await Promise.all(
    ['index', 'metacopy', 'redirect_dir'].map((name) => overlayParameter(name)),
  );
  // The kernel's default may be on, and then an engine that cannot follow them could not tell what a layer changed.
  const pinned = !engine.followsRedirects;
  const switchedOff = [
    ...(pinned && redirects !== undefined ? ['redirect_dir'] : []),
    ...(pinned && metacopy !== undefined ? ['metacopy'] : []),
  ];
  // With userxattr the kernel has both off, and refuses to be told so.
  const profile = user
    ? mountProfile(new Map([...parsed.mountOptions, ['userxattr', undefined]]), index !== undefined)
    : mountProfile(parsed.mountOptions, index !== undefined, switchedOff);
  let tier = 'none tried';
  if (!readOnly) {
    const probe = await probeOverlay(
      engine,
      await scratchHome(context, layout.home),
      profile.writable,
      whiteoutsOf(context),
      context.logger,
    );
    if (!probe.works) return probe.why;
    tier = probe.tier;
    await writePrivilege(context);
    await makeHome(context, layout);
  } else if ((await kindOf(layout.home)) === undefined && !known.has('overlay')) {
    return 'the kernel knows no overlayfs';
  }
  const home = (await kindOf(layout.home)) === undefined ? root : layout.home;
  if (parsed.size !== undefined && !readOnly) await refuseSize(home);
  const usesMetacopy = parsed.mountOptions.get('metacopy') ?? (metacopy === 'Y' && !pinned && !user ? 'on' : 'off');
  return new Overlay2Driver(context, {
    profile,
    size: parsed.size,
    labels: known.has('selinuxfs'),
    found: [
      ['Backing Filesystem', await backingFileSystem(home)],
      // The trial mount fails without; a root opened for reading was made with it.
      ['Supports d_type', 'true'],
      ['Using metacopy', String(usesMetacopy === 'on')],
      // Differences are read from the upper directory whatever the mount options are.
      ['Native Overlay Diff', 'true'],
      ['userxattr', String(user)],
      ['Mount tier', tier],
      ['Privilege', privilege],
      ...engineStatus(engine),
    ],
  });
}

async function openVfs(context: DriverContext): Promise<Driver> {
  const { root, engine, readOnly } = context;
  const home = vfsHome(root);
  if (!readOnly) {
    await makeOwnDirectory(root);
    await writePrivilege(context);
    await prepare(context, [
      { op: 'mkdir', path: home.slice(0, home.lastIndexOf('/')), mode: 0o710, existOk: true },
      { op: 'mkdir', path: home, mode: 0o710, existOk: true },
    ]);
  }
  const place = (await kindOf(home)) === undefined ? root : home;
  return new VfsDriver(context, [
    ['Backing Filesystem', await backingFileSystem(place)],
    ['Privilege', context.privilege],
    ...engineStatus(engine),
  ]);
}

async function makeHome(context: DriverContext, layout: Layout): Promise<void> {
  await prepare(context, [
    { op: 'mkdir', path: layout.home, mode: 0o710, existOk: true },
    { op: 'mkdir', path: layout.links, mode: 0o700, existOk: true },
  ]);
}

/** Makes directories, each inside the one before; in `strict` their names are on disk before a layer is promised. */
async function prepare(context: DriverContext, steps: Extract<BatchOp, { op: 'mkdir' }>[]): Promise<void> {
  const last = steps.at(-1)?.path ?? context.root;
  if ((await kindOf(last)) === 'directory') return;
  const sync = [context.root, ...steps.map(({ path }) => path)].map((path): BatchOp => ({ op: 'fsync', path }));
  await context.engine.batch([...steps, ...(context.durability === 'strict' ? sync : [])]);
}

/** Where the trial mount is made: in our own directory under the root, or in the driver's where that is another file system. */
async function scratchHome(context: DriverContext, home: string): Promise<string> {
  const { root } = context;
  const own = `${root}/layerstore`;
  const directory = (await kindOf(home)) !== undefined && !(await sameFileSystem(root, home)) ? home : own;
  if (directory === own || context.privilege !== 'full') await makeOwnDirectory(root);
  const names = await namesIn(directory, context.engine);
  for (const name of names.filter(isScratch)) await removeScratch(context, `${directory}/${name}`);
  return directory;
}

async function makeOwnDirectory(root: string): Promise<void> {
  await makeDirectory(`${root}/layerstore`, 0o700).catch((error: unknown) => {
    throw systemError(error, 'make the directory', 'check that the root is a directory and writable');
  });
}

/** Removes what a process that died left of its trial mount. */
async function removeScratch({ engine, logger }: DriverContext, path: string): Promise<void> {
  try {
    for (const { target } of (await engine.mounts(path)).reverse()) await engine.unmount(target);
    await engine.removeTree(path);
  } catch (error) {
    // It does no harm; the next open tries again.
    logger.warn({ path, ...errorFields(error) }, 'cannot remove the scratch directory of an earlier trial mount');
  }
}

function engineStatus(engine: Engine): (readonly [string, string])[] {
  const { kernel, ...features } = engine.features();
  return [
    ['Engine', engine.name],
    ['Kernel', kernel],
    ...Object.entries(features).map(([name, value]) => [`Feature ${name}`, value] as const),
  ];
}
