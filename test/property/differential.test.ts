/**
 * Any hostile archive is taken or refused alike by both engines and in both forms of a layer. A fixed number of archives,
 * so that a seed (`LAYERSTORE_SEED`) always gives the same ones; minutes of it with other seeds in `npm run soak`.
 */
import { test } from 'node:test';
import { differentialProperty } from '../support/differential.js';
import { holdsTimes } from './budget.js';

/** Half of them are taken. Some 10 s on an idle machine. */
const ARCHIVES = 80;

test('both engines and both forms agree on any archive', async (t) => {
  await holdsTimes(t, await differentialProperty(), ARCHIVES);
});
