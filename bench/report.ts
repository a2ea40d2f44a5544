/** Results as a Markdown table and as an SVG bar chart. Pure. */
import type { Result, TrialResult } from './runner.js';

const ms = (value: number): string =>
  value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 2 : 0)} ms`;
const mib = (value: number): string => `${(value / 2 ** 20).toFixed(0)} MiB`;

export const TABLE_HEAD = [
  '| trial | who | median | min - max | runs | ratio | CPU | peak memory | timer late (p99) | rate |',
  '|---|---|--:|--:|--:|--:|--:|--:|--:|--:|',
].join('\n');

/** The rows of one trial. */
export function tableRows({ trial, reference, results, rateUnit }: TrialResult): string {
  return results
    .map((result, i) => {
      const { contestant, wall, cpu, peak, late, ratio } = result;
      const cells = [
        i === 0 ? trial : '',
        contestant,
        ms(wall.median),
        `${ms(wall.min)} - ${ms(wall.max)}`,
        String(wall.count),
        ratio === undefined || contestant === reference ? '' : ratio.median.toFixed(2),
        ms(cpu.median),
        mib(peak.max),
        late === undefined ? '' : ms(late),
        rateOf(result, rateUnit),
      ];
      return `| ${cells.join(' | ')} |`;
    })
    .join('\n');
}

export function markdownTable(results: readonly TrialResult[]): string {
  return [TABLE_HEAD, ...results.map(tableRows)].join('\n');
}

function rateOf({ rate, bytesPerSecond }: Result, unit = ''): string {
  if (rate !== undefined) return `${rate.median.toFixed(rate.median < 10 ? 1 : 0)}${unit}`;
  return bytesPerSecond === undefined || bytesPerSecond === 0 ? '' : `${(bytesPerSecond / 1e6).toFixed(0)} MB/s`;
}

const BLUE = '#1f6feb';
const LIGHT_BLUE = '#79b0ff';
const ORANGE = '#e3872d';
const GREYS = ['#6e7781', '#8c959f', '#afb8c1'];

const ROW = 19;
const LEFT = 184;
const WIDTH = 760;
const RIGHT = 170;

/**
 * Horizontal bars, a block a trial: median wall time, with a thin line from min to max. A block has a scale of its own
 * (its slowest median fills the width), since one trial takes milliseconds and another one seconds.
 */
export function barChart(title: string, about: string, results: readonly TrialResult[]): string {
  const parts: string[] = [];
  let y = 62;
  for (const { trial, reference, results: each } of results) {
    parts.push(`<text x="12" y="${y + 13}" font-weight="600">${escape(trial)}</text>`);
    y += ROW + 2;
    const scale = (WIDTH - LEFT - RIGHT) / Math.max(...each.map(({ wall }) => wall.median));
    let greys = 0;
    for (const { contestant, wall, ratio } of each) {
      const colour = colourOf(contestant) ?? GREYS[greys++ % GREYS.length] ?? '#000000';
      const length = Math.max(1, wall.median * scale);
      const limit = WIDTH - RIGHT + 20;
      const from = LEFT + wall.min * scale;
      const to = Math.min(limit, LEFT + wall.max * scale);
      const times = ratio === undefined || contestant === reference ? '' : `  ×${ratio.median.toFixed(2)}`;
      parts.push(
        `<text x="${LEFT - 8}" y="${y + 13}" text-anchor="end">${escape(contestant)}</text>`,
        `<rect x="${LEFT}" y="${y + 3}" width="${length.toFixed(1)}" height="13" rx="2" fill="${colour}"/>`,
        `<path d="M${from.toFixed(1)} ${y + 6}v7M${from.toFixed(1)} ${y + 9.5}H${to.toFixed(1)}M${to.toFixed(1)} ${y + 6}v7" stroke="#24292f" stroke-opacity="0.55" fill="none"/>`,
        `<text x="${(Math.max(LEFT + length, to) + 7).toFixed(1)}" y="${y + 13}">${ms(wall.median)}<tspan fill="#57606a" xml:space="preserve">${times}</tspan></text>`,
      );
      y += ROW;
    }
    y += 10;
  }
  const size = `width="${WIDTH}" height="${y + 4}" viewBox="0 0 ${WIDTH} ${y + 4}"`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="system-ui, 'DejaVu Sans', sans-serif" font-size="12" fill="#24292f">`,
    `<title>${escape(title)}</title>`,
    '<rect width="100%" height="100%" fill="#ffffff"/>',
    `<text x="12" y="24" font-size="16" font-weight="600">${escape(title)}</text>`,
    `<text x="12" y="42" font-size="11" fill="#57606a">${escape(about)}</text>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

/** Ours by engine, the plain case strongest; `undefined` for everybody else. */
function colourOf(contestant: string): string | undefined {
  const name = contestant.replace(/^layerstore, /, '');
  if (/^native($|, relaxed| to a descriptor)/.test(name)) return BLUE;
  if (name.startsWith('native')) return LIGHT_BLUE;
  return name.startsWith('js') ? ORANGE : undefined;
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
