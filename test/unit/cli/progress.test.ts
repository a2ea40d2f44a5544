import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { blobProgress, ProgressDisplay, renderProgress, type TransferView } from '../../../src/cli/progress.js';
import { Terminal } from '../../../src/cli/terminal.js';

const view = (label: string, part: Partial<TransferView> = {}): TransferView => ({
  label,
  state: 'Downloading',
  ended: false,
  done: 0,
  total: 100_000_000,
  rate: 0,
  ...part,
});
const some = [
  view('aaaaaaaaaaaa', { done: 50_000_000, rate: 10_000_000 }),
  view('bbbbbbbbbbbb', { state: 'Waiting' }),
  view('cccccccccccc', { state: 'Pull complete', ended: true, done: 100_000_000 }),
];

test('a line a blob with state, bar, sizes, rate and time left, and one for the sum', () => {
  const lines = renderProgress('pull', some, 3, { columns: 110, rows: 24 });
  assert.deepEqual(lines, [
    `aaaaaaaaaaaa  Downloading    ${'█'.repeat(13)}${'░'.repeat(12)}   50 %  50.0 MB of 100 MB  10.0 MB/s  5 s left`,
    'bbbbbbbbbbbb  Waiting',
    'cccccccccccc  Pull complete  100 MB',
    `pull: 1 of 3  ${'█'.repeat(15)}${'░'.repeat(15)}   50 %   150 MB of 300 MB  10.0 MB/s  15 s left`,
  ]);
});

test('a narrow terminal has the sum alone; a low one only what moves; no line is as wide as the terminal', () => {
  assert.deepEqual(renderProgress('pull', some, 3, { columns: 50, rows: 24 }), [
    'pull: 1 of 3   50 %  150 MB of 300 MB',
  ]);
  const many = Array.from({ length: 50 }, (_, i) => view(`${i}`.padStart(12, '0'), i % 10 === 3 ? { done: 1 } : {}));
  const low = renderProgress('pull', many, 50, { columns: 80, rows: 5 });
  assert.equal(low.length, 4);
  for (const line of low.slice(0, 3)) assert.match(line, /^0{10}[0-9]3 {2}Downloading/);
  for (let columns = 20; columns < 200; columns++) {
    for (const line of renderProgress('pull', some, 3, { columns, rows: 24 }))
      assert.ok(line.length < columns, `${columns}: ${line}`);
  }
});

test('what waits to be heard of counts, and there is no total before it is', () => {
  assert.equal(
    renderProgress('load', [view('a', { done: 1000, total: undefined })], 4, { columns: 80, rows: 24 }).at(-1),
    'load: 0 of 4  1.00 kB',
  );
  assert.equal(renderProgress('register', [view('tar', { done: 7 })], 0, { columns: 80, rows: 24 }).length, 1);
  assert.deepEqual(renderProgress('pull', [], 0, { columns: 80, rows: 24 }), []);
});

/** A terminal whose standard error is kept as text. */
function terminal(isTTY: boolean, json = false): { terminal: Terminal; said: () => string } {
  let said = '';
  const stderr = Object.assign(
    new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        said += chunk.toString();
        done();
      },
    }),
    { isTTY, columns: 100, rows: 24 },
  );
  const stdout = new Writable({ write: (_chunk, _encoding, done) => done() });
  return { terminal: new Terminal({ stdout, stderr, env: {} }, json), said: () => said };
}

const digest: `sha256:${string}` = `sha256:${'0123456789abcdef'.repeat(4)}`;
const events = [
  { state: 'waiting', transferred: 0, unpacked: 0, attempts: 1 },
  { state: 'downloading', transferred: 40, unpacked: 10, attempts: 1 },
  { state: 'downloading', transferred: 60, unpacked: 20, attempts: 2 },
  { state: 'unpacking', transferred: 100, unpacked: 150, attempts: 2 },
  { state: 'done', transferred: 100, unpacked: 300, attempts: 2 },
] as const;

test('without a terminal: a plain line when a blob has ended, and nothing with --quiet or --json', () => {
  for (const [quiet, json, expected] of [
    [false, false, '0123456789ab: Pull complete, 100 B\n'],
    [true, false, ''],
    [false, true, ''],
  ] as const) {
    const { terminal: plain, said } = terminal(false, json);
    const display = new ProgressDisplay(plain, 'pull', quiet);
    const listener = blobProgress(display, 'Pull complete');
    for (const event of events) listener({ digest, total: 100, ...event });
    listener({ digest, total: 100, ...events[4] });
    display.end();
    assert.equal(said(), expected);
  }
});

test('on a terminal the lines are replaced at most ten times a second, and the last ones stay', () => {
  const { terminal: screen, said } = terminal(true);
  let now = 0;
  const display = new ProgressDisplay(screen, 'pull', false, () => now);
  const listener = blobProgress(display, 'Pull complete');
  for (const event of events) {
    for (let i = 0; i < 10; i++) listener({ digest, total: 100, ...event });
    now += 100;
  }
  display.end();
  const drawings = said()
    .replaceAll(/\u001b\[[0-9]*[KJA]/g, '')
    .split('\r')
    .slice(1);
  assert.ok(drawings.length <= events.length + 1, `${drawings.length} drawings`);
  assert.match(drawings[1] ?? '', /^0123456789ab {2}Downloading .* 40 % .*40 B of 100 B/);
  assert.match(drawings[2] ?? '', /Downloading \(try 2\).*60 B of 100 B/);
  assert.match(drawings[3] ?? '', /Extracting \(try 2\) {2}150 B/);
  assert.equal(drawings.at(-1), '0123456789ab  Pull complete  100 B\n');
  screen.note('after');
  assert.ok(said().endsWith('\nafter\n'), 'what was drawn last is not cleared');
});

test('several lines are replaced from the first one, and cleared before a note', () => {
  const { terminal: screen, said } = terminal(true);
  screen.status(['one', 'two', 'three']);
  screen.status(['four', 'five']);
  screen.note('note');
  screen.done();
  screen.status(['late']);
  assert.equal(
    said(),
    '\rone\u001b[K\ntwo\u001b[K\nthree\u001b[K\u001b[J' +
      '\r\u001b[2Afour\u001b[K\nfive\u001b[K\u001b[J' +
      '\r\u001b[1A\u001b[Jnote\n',
  );
});
