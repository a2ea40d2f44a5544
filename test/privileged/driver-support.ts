/** Real engines for the driver tests: the native one with each way of mounting forced, and the JavaScript one. */
import type { TestContext } from 'node:test';
import type { Engine } from '../../src/engine/engine.js';
import { createJsEngine } from '../../src/engine/js/index.js';
import { loadNativeEngine, MOUNT_TIER_VARIABLE } from '../../src/engine/native/index.js';
import type { GraphDriver } from '../../src/driver/graph-driver.js';
import { openDriver, type OpenDriverOptions } from '../../src/driver/select.js';
import { tempDir } from '../support/temp.js';

export interface LogLine {
  level: string;
  message: string;
}

function nativeWith(tier: string): Engine {
  const before = process.env[MOUNT_TIER_VARIABLE];
  process.env[MOUNT_TIER_VARIABLE] = tier;
  try {
    return loadNativeEngine();
  } finally {
    if (before === undefined) delete process.env[MOUNT_TIER_VARIABLE];
    else process.env[MOUNT_TIER_VARIABLE] = before;
  }
}

export const native = nativeWith('auto');
export const js = createJsEngine();

/** Every way of mounting there is. */
export const ways: readonly { label: string; engine: Engine }[] = [
  ...['fd', 'lowerdir+', 'classic'].map((tier) => ({ label: `native, ${tier}`, engine: nativeWith(tier) })),
  { label: 'js', engine: js },
];

/** The optional members are there: these are the drivers of this package. */
export type FullDriver = Required<GraphDriver>;

export interface Opened {
  root: string;
  logged: LogLine[];
  open: (change?: Partial<OpenDriverOptions>) => Promise<FullDriver>;
}

export function prepare(t: TestContext, engine: Engine, root = tempDir(t, 'driver')): Opened {
  const logged: LogLine[] = [];
  const log =
    (level: string) =>
    (_fields: object, message: string): void =>
      void logged.push({ level, message });
  const logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };
  const open = async (change: Partial<OpenDriverOptions> = {}): Promise<FullDriver> =>
    (await openDriver({
      root,
      engine,
      durability: 'relaxed',
      readOnly: false,
      logger,
      driver: 'overlay2',
      driverOptions: {},
      acceptVolatile: false,
      ...change,
    })) as FullDriver;
  return { root, logged, open };
}
