// The C++ side without Node: `node scripts/native-tests.mjs asan|tsan|debug` builds a CMake preset and runs its tests,
// `fuzz [SECONDS]` builds the fuzzers and runs each, `tidy` runs clang-tidy and clang's thread-safety analysis over the list
// of sources.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const top = resolve(import.meta.dirname, '..');
const jobs = String(availableParallelism());
const [what = 'asan', argument] = process.argv.slice(2);

function run(command, args, options = {}) {
  const { status, signal, error } = spawnSync(command, args, {
    cwd: top,
    stdio: ['ignore', 'inherit', 'inherit'],
    ...options,
  });
  if (error) {
    console.error(`native-tests: ${command} does not run: ${error.message}`);
    process.exit(1);
  }
  if (status !== 0) {
    console.error(`native-tests: ${command} ${args.join(' ')} ended with ${signal ?? status}`);
    process.exit(1);
  }
}

function build(preset) {
  run('cmake', ['--preset', preset], { stdio: ['ignore', 'ignore', 'inherit'] });
  run('cmake', ['--build', '--preset', preset, '--parallel', jobs, '--', '--quiet'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

function fuzz(seconds) {
  build('fuzz');
  const folder = join(top, 'build-fuzz/native/fuzz');
  const fuzzers = readdirSync(folder).filter((name) => /^fuzz_\w+$/.test(name));
  if (fuzzers.length === 0) {
    console.error(`native-tests: no fuzzer in ${folder}`);
    process.exit(1);
  }
  for (const name of fuzzers) {
    const scratch = mkdtempSync(join(tmpdir(), 'layerstore-fuzz-'));
    const corpus = join(scratch, 'corpus');
    mkdirSync(corpus);
    const seeds = [join(top, 'test/data/tar'), join(top, 'native/fuzz/corpus', name.replace(/^fuzz_/, ''))].filter(
      (path) => {
        try {
          return readdirSync(path).length > 0;
        } catch {
          return false; // a fuzzer without seeds of its own
        }
      },
    );
    console.log(`--- ${name}, ${seconds} s`);
    run(join(folder, name), [
      ...(process.env.LAYERSTORE_SEED === undefined ? [] : [`-seed=${process.env.LAYERSTORE_SEED}`]),
      `-max_total_time=${seconds}`,
      '-rss_limit_mb=1024',
      '-timeout=60',
      '-print_final_stats=1',
      '-verbosity=0',
      `-artifact_prefix=${scratch}/`,
      corpus,
      ...seeds,
    ]);
    rmSync(scratch, { recursive: true, force: true });
  }
}

function tidy() {
  run('cmake', ['--preset', 'debug', '-DCMAKE_EXPORT_COMPILE_COMMANDS=ON'], { stdio: ['ignore', 'ignore', 'inherit'] });
  const sources = readFileSync(join(top, 'native/sources.txt'), 'utf8')
    .split('\n')
    .filter((line) => line.endsWith('.cc') && !line.startsWith('#'));
  const ofBinding = (path) => path.startsWith('native/binding/');
  // The binding's headers are not the core's: its locks are all that is looked at.
  const include = [
    'native',
    resolve(process.execPath, '../../include/node'),
    resolve(top, 'node_modules/node-addon-api'),
  ];
  const strict = ['-fsyntax-only', '-std=c++20', '-fno-exceptions', '-Wthread-safety', '-Werror'];
  for (const path of sources.filter(ofBinding)) {
    const [own, ...system] = include;
    run('clang++', [
      ...strict,
      '-DNAPI_VERSION=8',
      '-DNAPI_DISABLE_CPP_EXCEPTIONS',
      `-I${own}`,
      ...system.flatMap((at) => ['-isystem', at]),
      path,
    ]);
  }
  const core = sources.filter((path) => !ofBinding(path)).map((path) => join(top, path));
  const options = ['-p', 'build-debug', '-quiet', '-extra-arg=-Wthread-safety', '-j', jobs];
  run('run-clang-tidy', [...options, ...core], { stdio: ['ignore', 'inherit', 'ignore'] });
}

if (what === 'fuzz') fuzz(argument ?? '60');
else if (what === 'tidy') tidy();
else {
  build(what);
  run('ctest', ['--preset', what, '--no-tests=error', '--parallel', jobs]);
}
