/** Any hostile archive is taken or refused alike by both engines and in both forms of a layer; longer in `npm run soak`. */
import { test } from 'node:test';
import { differentialProperty } from '../support/differential.js';
import { holds } from './budget.js';

test('both engines and both forms agree on any archive', async (t) => {
  await holds(t, await differentialProperty());
});
