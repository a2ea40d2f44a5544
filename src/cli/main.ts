#!/usr/bin/env node
/** The `layerstore` command: the process around {@link run}. */
import { Interrupted, run, signalExitCode } from './run.js';

const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    // The first one stops the work cleanly, the second one ends the process at once.
    if (!interrupted.signal.aborted) {
      interrupted.abort(new Interrupted(name));
      return;
    }
    process.stderr.write(
      'layerstore: stopped at once: what was not taken away yet is removed by the next command that changes this store\n',
    );
    process.exit(signalExitCode(name));
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
  interrupted.signal,
);
