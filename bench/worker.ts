/** A process that runs operations for the runner, one engine's, so that memory and CPU are its own. */
import type { Operation, Parameters } from './operation.js';
import { operations } from './operations.js';

type Request = { kind: 'setup'; operation: string; parameters: Parameters } | { kind: 'run' } | { kind: 'teardown' };

let current: Operation | undefined;

async function answer(request: Request): Promise<unknown> {
  switch (request.kind) {
    case 'setup': {
      const setup = operations[request.operation];
      if (setup === undefined) throw new Error(`there is no operation "${request.operation}"`);
      current = await setup(request.parameters);
      return undefined;
    }
    case 'run':
      if (current === undefined) throw new Error('run before setup');
      return current.run();
    case 'teardown':
      await current?.teardown();
      current = undefined;
      return undefined;
  }
}

process.on('message', (request: Request) => {
  void answer(request).then(
    (value) => process.send?.({ value }),
    (error: unknown) =>
      process.send?.({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  );
});
