/** Progress bars with rate and time left, on standard error and only where that is a terminal. */
import type { ImageProgressListener, Progress, ProgressListener, SaveProgressListener } from '../index.js';
import { formatBytes, formatDuration, formatRate } from './format.js';
import type { Terminal } from './terminal.js';

const WIDTH = 24;
/** A shorter bar says nothing. */
const LEAST_WIDTH = 6;

/** One line for a transfer of which `done` of `total` bytes are there after `elapsed` milliseconds. Pure. */
export function progressLine(
  label: string,
  done: number,
  total: number | undefined,
  elapsed: number,
  columns = 80,
): string {
  const rate = formatRate(done, elapsed);
  if (total === undefined || total === 0) return `${label}  ${formatBytes(done)}  ${rate}`;
  const part = Math.min(1, done / total);
  const left = part > 0 && part < 1 ? `  ${formatDuration((elapsed / part) * (1 - part))} left` : '';
  const percent = String(Math.floor(part * 100)).padStart(3);
  const rest = `${percent} %  ${formatBytes(done)} of ${formatBytes(total)}  ${rate}${left}`;
  // The bar takes the room that the numbers leave; the last column stays free, or terminals would wrap.
  const width = Math.min(WIDTH, columns - 1 - label.length - rest.length - 4);
  if (width < LEAST_WIDTH) return `${label}  ${rest}`;
  const filled = Math.round(part * width);
  return `${label}  ${'█'.repeat(filled)}${'░'.repeat(width - filled)}  ${rest}`;
}

/** A listener for one registration. */
export function showProgress(terminal: Terminal, label: string): ProgressListener {
  const started = performance.now();
  return (progress: Progress) => {
    const elapsed = performance.now() - started;
    terminal.status(progressLine(label, progress.bytesRead, progress.totalBytes, elapsed, terminal.columns));
  };
}

/** A listener for an image: the layers go side by side, so what counts is the archive. `total`: its bytes, where known. */
export function showImageProgress(terminal: Terminal, label: string, total: number | undefined): ImageProgressListener {
  const started = performance.now();
  const read = new Map<string, number>();
  return ({ image, layer, bytesRead }) => {
    read.set(`${image} ${layer}`, bytesRead);
    const done = [...read.values()].reduce((sum, bytes) => sum + bytes, 0);
    terminal.status(progressLine(label, done, total, performance.now() - started, terminal.columns));
  };
}

/** A listener for an image that is written, a layer after the other: the bar is the layer's. */
export function showSaveProgress(terminal: Terminal, label: string): SaveProgressListener {
  let current = -1;
  let started = 0;
  return ({ layer, layers, bytesWritten, totalBytes }) => {
    if (layer !== current) started = performance.now();
    current = layer;
    const what = `${label} ${layer + 1}/${layers}`;
    terminal.status(progressLine(what, bytesWritten, totalBytes, performance.now() - started, terminal.columns));
  };
}
