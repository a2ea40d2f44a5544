/** Progress bars with rate and time left, on standard error and only where that is a terminal. */
import type { Progress, ProgressListener } from '../index.js';
import { formatBytes, formatDuration, formatRate } from './format.js';
import type { Terminal } from './terminal.js';

const WIDTH = 24;

/** One line for a transfer of which `done` of `total` bytes are there after `elapsed` milliseconds. Pure. */
export function progressLine(label: string, done: number, total: number | undefined, elapsed: number): string {
  const rate = formatRate(done, elapsed);
  if (total === undefined || total === 0) return `${label}  ${formatBytes(done)}  ${rate}`;
  const part = Math.min(1, done / total);
  const filled = Math.round(part * WIDTH);
  const bar = `${'█'.repeat(filled)}${'░'.repeat(WIDTH - filled)}`;
  const left = part > 0 && part < 1 ? `  ${formatDuration((elapsed / part) * (1 - part))} left` : '';
  return `${label}  ${bar}  ${String(Math.floor(part * 100)).padStart(3)} %  ${formatBytes(done)} of ${formatBytes(total)}  ${rate}${left}`;
}

/** A listener for one registration. */
export function showProgress(terminal: Terminal, label: string): ProgressListener {
  const started = performance.now();
  return (progress: Progress) => {
    terminal.status(progressLine(label, progress.bytesRead, progress.totalBytes, performance.now() - started));
  };
}
