/** Results as a Markdown table and as an SVG bar chart. Pure. */
import type { TrialResult } from './runner.js';

const ms = (value: number): string =>
  value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 2 : 0)} ms`;
const mib = (value: number): string => `${(value / 2 ** 20).toFixed(0)} MiB`;

export function markdownTable(results: readonly TrialResult[]): string {
  const lines = [
    '| trial | who | median | min - max | ratio | CPU | peak memory | timer late (p99) | rate |',
    '|---|---|---|---|---|---|---|---|---|',
  ];
  for (const { trial, reference, results: each } of results) {
    for (const [i, { contestant, wall, cpu, peak, late, ratio, bytesPerSecond, rate }] of each.entries()) {
      lines.push(
        `| ${i === 0 ? trial : ''} | ${contestant} | ${ms(wall.median)} | ${ms(wall.min)} - ${ms(wall.max)} | ` +
          `${ratio === undefined || contestant === reference ? '' : ratio.median.toFixed(2)} | ${ms(cpu.median)} | ${mib(peak.max)} | ` +
          `${late === undefined ? '' : ms(late)} | ${
            rate !== undefined
              ? `${rate.median.toFixed(0)}`
              : bytesPerSecond === undefined
                ? ''
                : `${(bytesPerSecond / 1e6).toFixed(0)} MB/s`
          } |`,
      );
    }
  }
  return lines.join('\n');
}

const COLOURS = ['#888888', '#1f6feb', '#e3872d', '#8250df', '#1a7f37', '#cf222e'];

/** Horizontal bars, one block a trial: median wall time, with a thin line from min to max. */
export function barChart(title: string, results: readonly TrialResult[]): string {
  const rowHeight = 18;
  const left = 300;
  const width = 860;
  const longest = Math.max(...results.flatMap(({ results: each }) => each.map(({ wall }) => wall.median)));
  const scale = (width - left - 90) / longest;
  const names = [...new Set(results.flatMap(({ results: each }) => each.map(({ contestant }) => contestant)))];
  const colour = (name: string): string => COLOURS[names.indexOf(name) % COLOURS.length] ?? '#000000';
  const parts: string[] = [];
  let y = 44;
  for (const { trial, results: each } of results) {
    parts.push(`<text x="8" y="${y + 13}" font-weight="600">${escape(trial)}</text>`);
    y += rowHeight;
    for (const { contestant, wall } of each) {
      const length = Math.max(1, wall.median * scale);
      const from = left + wall.min * scale;
      const to = Math.min(width - 4, left + wall.max * scale);
      parts.push(
        `<text x="${left - 8}" y="${y + 13}" text-anchor="end">${escape(contestant)}</text>`,
        `<rect x="${left}" y="${y + 3}" width="${length.toFixed(1)}" height="12" fill="${colour(contestant)}"/>`,
        `<line x1="${from.toFixed(1)}" x2="${to.toFixed(1)}" y1="${y + 9}" y2="${y + 9}" stroke="#000000" stroke-opacity="0.45"/>`,
        `<text x="${(Math.max(left + length, to) + 6).toFixed(1)}" y="${y + 13}">${ms(wall.median)}</text>`,
      );
      y += rowHeight;
    }
    y += 6;
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y + 8}" viewBox="0 0 ${width} ${y + 8}" font-family="system-ui, sans-serif" font-size="12" fill="#24292f">`,
    `<rect width="100%" height="100%" fill="#ffffff"/>`,
    `<text x="8" y="24" font-size="16" font-weight="600">${escape(title)}</text>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
