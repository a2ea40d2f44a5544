import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  formatBytes,
  formatDuration,
  formatRate,
  formatTable,
  formatTimeLeft,
  shortID,
} from '../../../src/cli/format.js';

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

test('formatTimeLeft gives whole units, never zero', () => {
  for (const [milliseconds, text] of [
    [0, '1 s'],
    [391, '1 s'],
    [59_001, '1 min 00 s'],
    [125_000, '2 min 05 s'],
    [12_000_000, '3 h 20 min'],
  ] as const) {
    assert.equal(formatTimeLeft(milliseconds), text);
  }
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
