/** The addon shares its process with Node's own zlib, OpenSSL and zstd: it must export none, and bring no second one of two. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { loadBinding } from '../../../src/engine/native/load.js';

const path = (loadBinding() as unknown as { path: string }).path;

/** Names of the dynamic symbols; weak wishes, which nothing has to fulfil, are left out. */
function symbols(flag: string): string[] {
  return execFileSync('nm', ['-D', flag, path], { encoding: 'utf8' })
    .split('\n')
    .map((line) => /([A-Za-z]) (\S+)$/.exec(line.trim()))
    .filter((found) => found !== null && found[1] !== 'w')
    .map((found) => found?.[2]?.split('@')[0] ?? '');
}

test('the addon exports the entry points of Node-API and nothing else', () => {
  const allowed = ['napi_register_module_v1', 'node_api_module_get_api_version_v1'];
  const exported = symbols('--defined-only');
  assert.ok(exported.includes('napi_register_module_v1'));
  assert.deepEqual(
    exported.filter((name) => !allowed.includes(name)),
    [],
  );
});

test('OpenSSL is that of the process, and zstd is linked in', () => {
  const wanted = symbols('--undefined-only');
  assert.ok(wanted.includes('EVP_DigestUpdate'), 'EVP comes from the Node executable');
  assert.deepEqual(
    wanted.filter((name) => name.startsWith('ZSTD_')),
    [],
    'a newer Node exports a zstd of its own',
  );
  const libraries = execFileSync('readelf', ['-d', path], { encoding: 'utf8' });
  assert.doesNotMatch(libraries, /NEEDED.*lib(crypto|ssl|z|zstd)\.so/);
  assert.match(libraries, /BIND_NOW/);
});
