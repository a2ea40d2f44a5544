// npm's install script: takes a prebuilt addon where one loads, else builds it with node-gyp, offline where the running
// Node has its headers beside it. Where neither works the package still installs: the pure-JavaScript engine remains.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const top = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
// The sources of a checkout may be newer than any prebuilt addon; the published package has no .git.
const checkout = existsSync(join(top, '.git'));

/** Ends the script with success: a failed build must not fail the program that depends on this package. */
function leave(message) {
  if (message !== undefined) console.log(`layerstore: ${message}`);
  process.exit(0);
}

/** Whether the addon at `path` loads into a Node like this one; asked in a process of its own, which it may crash. */
function loads(path) {
  const script = 'process.exit(typeof require(process.argv[1]).features === "function" ? 0 : 1)';
  return (
    existsSync(path) &&
    spawnSync(process.execPath, ['-e', script, path], { stdio: 'ignore', timeout: 30_000 }).status === 0
  );
}

/** Both builds of this platform; the one for the other C library refuses to load. */
function prebuilt() {
  const platform = `linux-${process.arch}`;
  return [platform, `${platform}-musl`].some((name) => loads(join(top, 'prebuilds', name, 'layerstore.node')));
}

/** npm's own node-gyp, else one that the project has. */
function nodeGyp() {
  const given = process.env.npm_config_node_gyp;
  if (given !== undefined && existsSync(given)) return [process.execPath, given];
  try {
    return [process.execPath, require.resolve('node-gyp/bin/node-gyp.js')];
  } catch {
    return ['node-gyp']; // none in the project: perhaps one in the PATH
  }
}

function build() {
  const prefix = resolve(process.execPath, '../..');
  const headers = existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
  const [command, ...args] = nodeGyp();
  const result = spawnSync(command, [...args, 'rebuild', '--jobs', 'max', ...headers], {
    cwd: top,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  if (result.status === 0 && loads(join(top, 'build/Release/layerstore.node'))) return undefined;
  const output = `${result.error?.message ?? ''}\n${result.stdout ?? ''}\n${result.stderr ?? ''}`;
  const reasons = output.split('\n').filter((line) => /error|gyp ERR! (find|stack)|not found|cannot/i.test(line));
  return reasons.slice(0, 12).join('\n') || 'it was built, and does not load';
}

if (process.platform !== 'linux')
  leave(`no addon on ${process.platform}: stores need Linux, and openStore will say so; types and pure functions work`);
if (!checkout && prebuilt()) leave();
const failure = build();
if (failure === undefined) leave();
console.log(`layerstore: the native addon could not be built, so the slower pure-JavaScript engine is used.
layerstore: it needs python3, make and a C++20 compiler (Debian: apt-get install python3 make g++); then run "npm rebuild layerstore".
${failure}`);
leave();
