import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseArguments } from '../../../src/cli/arguments.js';
import { SYSTEM_ROOT } from '../../../src/cli/default-root.js';
import { commands } from '../../../src/cli/commands/index.js';
import { commandHelp, overview } from '../../../src/cli/help.js';
import { UsageError } from '../../../src/cli/usage-error.js';

const parse = (line: string, env: Record<string, string> = {}) =>
  parseArguments(line.split(' ').filter(Boolean), commands, env);

test('options may stand before and after the command', () => {
  for (const line of ['--root /r --json ls', 'ls --root /r --json', '--root /r ls --json']) {
    const parsed = parse(line);
    assert.ok(parsed.kind === 'run');
    assert.equal(parsed.command.name, 'ls');
    assert.deepEqual(parsed.options, { root: '/r', json: true });
  }
});

test('the root comes from --root, then LAYERSTORE_ROOT, then the default', () => {
  const rootOf = (line: string, env?: Record<string, string>): string => {
    const parsed = parse(line, env);
    assert.ok(parsed.kind === 'run');
    return parsed.options.root;
  };
  assert.equal(rootOf('ls'), SYSTEM_ROOT);
  assert.equal(rootOf('ls', { LAYERSTORE_ROOT: '/env' }), '/env');
  assert.equal(rootOf('--root /given ls', { LAYERSTORE_ROOT: '/env' }), '/given');
});

test('wrong usage is a UsageError that names what is wrong', () => {
  for (const [line, words] of [
    ['frobnicate', /no command "frobnicate"/],
    ['registr x', /did you mean "register"/],
    ['register', /register takes .*; 0 given/],
    ['ls extra', /ls takes no arguments; 1 given/],
    ['ls --nonsense', /^ls has no option "--nonsense"$/],
    ['ls --jsn', /^ls has no option "--jsn"; did you mean "--json"\?$/],
    ['-x ls', /^ls has no option "-x"$/],
    ['rm --type --force box', /^--type needs a value: write --type=--force if it begins with "-"$/],
    ['ls --json=3', /^--json takes no value$/],
    ['--engine wasm ls', /--engine takes native or js, not "wasm"/],
    ['--durability maybe ls', /--durability takes strict or relaxed/],
    ['--root', /^--root needs a value$/],
  ] as const) {
    assert.throws(
      () => parse(line),
      (error) => error instanceof UsageError && words.test(error.message),
      line,
    );
  }
});

test('help and version are asked for in every usual way', () => {
  assert.equal(parse('').kind, 'help');
  assert.equal(parse('--help').kind, 'help');
  assert.equal(parse('--version').kind, 'version');
  for (const line of ['help register', 'register --help', 'register -h']) {
    const parsed = parse(line);
    assert.ok(parsed.kind === 'help');
    assert.equal(parsed.command?.name, 'register', line);
  }
  for (const line of ['version', '-v', 'ls -v']) assert.equal(parse(line).kind, 'version', line);
  assert.throws(() => parse('help nonsense'), UsageError);
});

test('rmi and unmount are other names, also in help', () => {
  const parsed = parse('--root /r rmi -f debian:12');
  assert.ok(parsed.kind === 'run');
  assert.equal(parsed.command.name, 'rm');
  assert.deepEqual(parsed.positionals, ['debian:12']);
  assert.equal(parsed.values.text('type'), 'image');
  const help = parse('help unmount');
  assert.ok(help.kind === 'help');
  assert.equal(help.command?.name, 'umount');
});

test('every command of the contract is there, with help and an example that names it', () => {
  const contract =
    'load save register images tag history report ls inspect export create mount umount diff commit rm verify gc info df bench';
  for (const name of contract.split(' ')) {
    const command = commands.find((each) => each.name === name);
    assert.ok(command !== undefined, name);
    const help = commandHelp(command);
    assert.match(help, new RegExp(`Usage: layerstore ${name}`));
    assert.ok(
      command.examples.some((example) => example.includes(`layerstore ${name}`)),
      `${name} has an example`,
    );
    for (const line of help.split('\n')) assert.ok(line.length <= 110, `${name}: ${line}`);
  }
  for (const line of overview(commands).split('\n')) assert.ok(line.length <= 80, line);
});

test('all that follows "unshare" is a program with its own options', () => {
  for (const [line, words] of [
    ['unshare', []],
    ['unshare sh -c x', ['sh', '-c', 'x']],
    ['--root /r unshare -- podman --help', ['podman', '--help']],
    ['unshare podman --root /x --json', ['podman', '--root', '/x', '--json']],
  ] as const) {
    const parsed = parse(line);
    assert.ok(parsed.kind === 'run', line);
    assert.deepEqual(parsed.positionals, words);
    assert.equal(parsed.options.json, false);
  }
  assert.equal(parse('unshare --help').kind, 'help');
});

test('--storage-opt gives the driver its options', () => {
  const parsed = parse('--storage-opt overlay2.mountopt=xino=off ls --storage-opt ignore_chown_errors=true');
  assert.ok(parsed.kind === 'run');
  assert.deepEqual(parsed.options.driverOptions, {
    'overlay2.mountopt': 'xino=off',
    ignore_chown_errors: 'true',
  });
  assert.throws(() => parse('ls --storage-opt size'), /takes KEY=VALUE, not "size"/);
});
