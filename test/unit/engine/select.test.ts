/** The choice of an engine. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LayerStoreError } from '../../../src/errors.js';
import { HIDE_ADDON_VARIABLE, openEngine } from '../../../src/engine/select.js';

function hidden(t: { after(step: () => void): void }): void {
  const before = process.env[HIDE_ADDON_VARIABLE];
  process.env[HIDE_ADDON_VARIABLE] = '1';
  t.after(() => {
    if (before === undefined) delete process.env[HIDE_ADDON_VARIABLE];
    else process.env[HIDE_ADDON_VARIABLE] = before;
  });
}

test('without the addon auto takes JavaScript, and says so once', async (t) => {
  hidden(t);
  const said: [object, string][] = [];
  const engine = await openEngine({ logger: { warn: (fields, message) => void said.push([fields, message]) } });
  assert.equal(engine.name, 'js');
  assert.equal(said.length, 1);
  assert.match(said[0]?.[1] ?? '', /JavaScript engine: .*LAYERSTORE_HIDE_ADDON/);
  assert.equal((await openEngine()).name, 'js');
});

test('native that cannot be had is ERR_NOT_SUPPORTED, with the reason', async (t) => {
  hidden(t);
  await assert.rejects(
    openEngine({ engine: 'native' }),
    (error) => LayerStoreError.is(error, 'ERR_NOT_SUPPORTED') && error.message.includes('hidden'),
  );
});

test('js is taken when asked for, silently; anything else is refused', async () => {
  const engine = await openEngine({ engine: 'js', logger: { warn: () => assert.fail('nothing to warn of') } });
  assert.equal(engine.name, 'js');
  assert.match(engine.features().kernel, /^\d+\./);
  await assert.rejects(openEngine({ engine: 'rust' as never }), (error) =>
    LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT'),
  );
});
