import type { Entry } from './promises.js';

/** The entries of a log whose writer may have been killed in the middle of a line. */
export function readLog(text: string): Entry[] {
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  return whole
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Entry);
}
