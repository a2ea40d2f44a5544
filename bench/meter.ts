/** Measures one piece of work inside this process: wall, CPU, peak memory over idle, event-loop lateness. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Sample } from './sample.js';
import { percentile } from './statistics.js';

const TICK = 10;

/** A 10 ms timer that notes how late each tick came. */
class Lateness {
  readonly #late: number[] = [];
  #expected = performance.now() + TICK;
  readonly #timer = setInterval(() => {
    const now = performance.now();
    this.#late.push(Math.max(0, now - this.#expected));
    this.#expected = now + TICK;
  }, TICK);

  /** `undefined` where the work was shorter than a tick. */
  stop(): number | undefined {
    clearInterval(this.#timer);
    const now = performance.now();
    // Ticks that never came, because the loop was blocked to the end, count too.
    if (now > this.#expected) this.#late.push(now - this.#expected);
    return this.#late.length === 0 ? undefined : percentile(this.#late, 0.99);
  }
}

function residentPeak(): number {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(line?.[1] ?? 0) * 1024;
}

export async function measure(work: () => Promise<Partial<Sample> | void>): Promise<Sample> {
  global.gc?.();
  writeFileSync('/proc/self/clear_refs', '5'); // resets the peak (proc(5))
  const idle = process.memoryUsage.rss();
  const cpu = process.cpuUsage();
  const lateness = new Lateness();
  const started = performance.now();
  let extra: Partial<Sample> | void;
  let late: number | undefined;
  let wall: number;
  try {
    extra = await work();
  } finally {
    wall = performance.now() - started;
    late = lateness.stop();
  }
  const used = process.cpuUsage(cpu);
  return {
    wall,
    cpu: (used.user + used.system) / 1000,
    peak: Math.max(0, residentPeak() - idle),
    ...(late === undefined ? {} : { late }),
    ...extra,
  };
}
