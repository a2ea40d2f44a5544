#!/usr/bin/env node
/** The `layerstore` command: the process around {@link run}. */
import { Interrupted, run, signalExitCode } from './run.js';

const stop = new AbortController();
const hurry = new AbortController();
/** Milliseconds that a command has to end in after a second signal. */
const PATIENCE = 1000;
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    // The first one stops the work and waits until what was begun is removed; the second one ends that wait.
    if (!stop.signal.aborted) {
      stop.abort(new Interrupted(name));
      return;
    }
    const exit = (): never => {
      process.stderr.write(
        'layerstore: ended at once; what was begun is removed by the next command that changes this store\n',
      );
      process.exit(signalExitCode(name));
    };
    if (hurry.signal.aborted) exit();
    hurry.abort();
    setTimeout(exit, PATIENCE).unref();
  });
}
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // `layerstore ls | head`: the reader has seen enough.
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

process.exitCode = await run(
  process.argv.slice(2),
  { stdout: process.stdout, stderr: process.stderr, env: process.env },
  { signal: stop.signal, hurry: hurry.signal },
);
