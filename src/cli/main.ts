#!/usr/bin/env node
/** The `layerstore` command: the process around {@link run}. */
import { run } from './run.js';

const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  // The first one stops the work cleanly; a second one ends the process at once.
  process.once(name, () => interrupted.abort(new Error(`stopped by ${name}`)));
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
