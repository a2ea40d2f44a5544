import type { Engine } from '../engine/engine.js';

/** What each group of tests is given. */
export interface EngineTestContext {
  privileged: boolean;
  /** Registers one test with an engine and an empty directory. */
  test: (title: string, run: (engine: Engine, directory: string) => Promise<void>) => void;
}
