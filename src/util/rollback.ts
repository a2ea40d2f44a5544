/**
 * A stack of steps back: each step forward pushes what takes it back; a failure runs them in reverse. A step that fails
 * is reported and never hides the error that made it necessary.
 */
export class Rollback {
  readonly #steps: { label: string; undo: () => unknown }[] = [];
  readonly #report: (label: string, error: unknown) => void;

  constructor(report: (label: string, error: unknown) => void) {
    this.#report = report;
  }

  push(label: string, undo: () => unknown): void {
    this.#steps.push({ label, undo });
  }

  /** What was done stays. */
  keep(): void {
    this.#steps.length = 0;
  }

  async run(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step.undo();
      } catch (error) {
        this.#report(step.label, error);
      }
    }
  }
}
