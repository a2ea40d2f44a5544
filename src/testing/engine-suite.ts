/** What every engine has to do, as tests for `node:test`. Asks for features, never for names. */
import { describe, it } from 'node:test';
import type { Engine } from '../engine/engine.js';
import { engineHostileTests } from './engine-suite-hostile.js';
import { engineKernelTests } from './engine-suite-kernel.js';
import { engineTarTests } from './engine-suite-tars.js';
import { engineTreeTests } from './engine-suite-trees.js';
import type { EngineTestContext } from './engine-test-context.js';
import { withSuiteDirectory } from './suite-directory.js';

export interface EngineSuiteOptions {
  /** For the titles of the tests. */
  name: string;
  factory: () => Promise<Engine> | Engine;
  /** Mounts, owners, devices and `trusted.` attributes can be had here. Default: whether this process is root. */
  privileged?: boolean;
  /** Where the suite makes its directories: a file system that overlayfs can have as its upper one. Default: the system's place. */
  scratch?: string;
}

/** Registers the tests. */
export function engineSuite(options: EngineSuiteOptions): void {
  const { name, factory, scratch, privileged = process.getuid?.() === 0 } = options;
  const context: EngineTestContext = {
    privileged,
    test: (title, run) =>
      void it(title, () => withSuiteDirectory(scratch, async (directory) => run(await factory(), directory))),
  };
  describe(`engine: ${name}`, () => {
    engineTarTests(context);
    engineHostileTests(context);
    engineTreeTests(context);
    engineKernelTests(context);
  });
}
