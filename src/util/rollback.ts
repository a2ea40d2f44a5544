/**
 * A stack of undo steps: each step of an operation pushes its undo; a failure runs them in reverse. An undo that fails is
 * reported; the caller still gets the first error.
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

  /** Forgets the undo steps: the operation succeeded. */
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
