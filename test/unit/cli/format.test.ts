import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatBytes, formatDuration, formatRate, formatTable, shortID } from '../../../src/cli/format.js';
import { progressLine } from '../../../src/cli/progress.js';

test('formatBytes prints three digits and decimal units', () => {
  for (const [bytes, text] of [
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.00 kB'],
    [1536, '1.54 kB'],
    [999_600, '1.00 MB'],
    [661_000_000, '661 MB'],
    [2_300_000_000, '2.30 GB'],
  ] as const) {
    assert.equal(formatBytes(bytes), text);
  }
});

test('formatDuration and formatRate', () => {
  assert.equal(formatDuration(1.25), '1.3 ms');
  assert.equal(formatDuration(850), '850 ms');
  assert.equal(formatDuration(3200), '3.2 s');
  assert.equal(formatDuration(125_000), '2 min 05 s');
  assert.equal(formatRate(1_000_000, 1000), '1.00 MB/s');
  assert.equal(formatRate(1, 0), '');
});

test('shortID shortens as Docker does', () => {
  assert.equal(shortID(`sha256:${'0123456789abcdef'.repeat(4)}`), '0123456789ab');
});

test('formatTable keeps to the width by cutting flexible columns', () => {
  const columns = [
    { title: 'NAME', flexible: true },
    { title: 'SIZE', right: true },
  ];
  const rows = [
    ['short', '1 B'],
    ['x'.repeat(200), '12 kB'],
  ];
  const lines = formatTable(columns, rows, 80).split('\n');
  assert.equal(lines.length, 3);
  for (const line of lines) assert.ok(line.length <= 80, `${line.length}: ${line}`);
  assert.match(lines[2] ?? '', /…  12 kB$/);
  assert.equal(formatTable(columns, rows.slice(0, 1)), 'NAME   SIZE\nshort   1 B');
});

test('progressLine shows part, rate and time left, and copes with an unknown total', () => {
  const half = progressLine('register', 50_000_000, 100_000_000, 1000);
  assert.match(half, /50 %/);
  assert.match(half, /50\.0 MB of 100 MB/);
  assert.match(half, /50\.0 MB\/s/);
  assert.match(half, /1\.0 s left/);
  assert.match(progressLine('register', 5000, undefined, 1000), /^register {2}5\.00 kB {2}5\.00 kB\/s$/);
  assert.doesNotMatch(progressLine('register', 100, 100, 1000), /left/);
});

test('progressLine keeps its numbers where the terminal is narrow, and leaves the last column free', () => {
  for (const columns of [40, 60, 80, 200]) {
    const line = progressLine('load', 123_456_789, 2_345_678_901, 12_345, columns);
    assert.match(line, /5 % {2}123 MB of 2\.35 GB {2}10\.0 MB\/s {2}3 min 42 s left$/);
    assert.ok(line.length < Math.max(columns, 60), `${columns}: ${line}`);
    assert.equal(/[█░]{6}/.test(line), columns > 60, line);
  }
});
