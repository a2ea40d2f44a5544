/** A driver over the fake engine in a directory of its own. */
import { mkdirSync, readFileSync, readdirSync, readlinkSync, statSync, lstatSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { DriverContext } from '../../../src/driver/context.js';
import { mountProfile, parseMountOptions } from '../../../src/driver/options.js';
import { Overlay2Driver } from '../../../src/driver/overlay2/driver.js';
import { VfsDriver } from '../../../src/driver/vfs/driver.js';
import { tempDir } from '../../support/temp.js';
import { asEngine, FakeEngine } from './fake-engine.js';

export interface LogLine {
  level: string;
  fields: object;
  message: string;
}

export interface Fixture<Driver> {
  root: string;
  home: string;
  engine: FakeEngine;
  logged: LogLine[];
  driver: Driver;
  /** Another driver over the same root, as after a restart. */
  reopen: (change?: Partial<DriverContext>, mountopt?: string) => Driver;
}

function prepare(t: TestContext): { root: string; engine: FakeEngine; logged: LogLine[]; context: DriverContext } {
  const root = tempDir(t, 'driver');
  const engine = new FakeEngine();
  const logged: LogLine[] = [];
  const log =
    (level: string) =>
    (fields: object, message: string): void =>
      void logged.push({ level, fields, message });
  const context: DriverContext = {
    privilege: 'full',
    ownersShifted: false,
    root,
    engine: asEngine(engine),
    durability: 'relaxed',
    readOnly: false,
    acceptVolatile: false,
    logger: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') },
    reason: 'a test',
  };
  return { root, engine, logged, context };
}

export function overlay2(t: TestContext, change: Partial<DriverContext> = {}, mountopt = ''): Fixture<Overlay2Driver> {
  const { root, engine, logged, context } = prepare(t);
  const home = join(root, 'overlay2');
  mkdirSync(join(home, 'l'), { recursive: true, mode: 0o700 });
  const open = (more: Partial<DriverContext> = {}, options = mountopt): Overlay2Driver =>
    new Overlay2Driver(
      { ...context, ...change, ...more },
      {
        profile: mountProfile(parseMountOptions(options), true),
        size: undefined,
        labels: false,
        found: [['Mount tier', 'none']],
      },
    );
  return { root, home, engine, logged, driver: open(), reopen: open };
}

export function vfs(t: TestContext, change: Partial<DriverContext> = {}): Fixture<VfsDriver> {
  const { root, engine, logged, context } = prepare(t);
  const home = join(root, 'vfs', 'dir');
  mkdirSync(home, { recursive: true });
  const open = (more: Partial<DriverContext> = {}): VfsDriver => new VfsDriver({ ...context, ...change, ...more }, []);
  return { root, home, engine, logged, driver: open(), reopen: open };
}

/** Each entry below `directory`: kind, mode, and what is in it, by path. */
export function snapshot(directory: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort()) {
    const path = join(directory, name);
    const entry = lstatSync(path);
    const mode = (entry.mode & 0o7777).toString(8).padStart(4, '0');
    if (entry.isSymbolicLink()) found[name] = `link ${readlinkSync(path)}`;
    else if (entry.isDirectory()) found[name] = `dir ${mode}`;
    else found[name] = `file ${mode} ${readFileSync(path, 'utf8')}`;
  }
  return found;
}

export function modeOf(path: string): string {
  return (statSync(path).mode & 0o7777).toString(8).padStart(4, '0');
}
