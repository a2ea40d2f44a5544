/** What a pull or a push tells of each blob: at most ten times a second, and at once when its state changes. */
import type { Digest } from '../digest.js';
import type { DownloadProgress } from '../registry/download.js';
import { atMostEvery, PROGRESS_INTERVAL } from '../util/throttle.js';
import type { BlobProgress, ImageProgress } from './types.js';

export class BlobReports {
  readonly #listener: ((progress: BlobProgress) => void) | undefined;
  readonly #blobs = new Map<Digest, BlobProgress>();
  readonly #due = new Map<Digest, () => boolean>();

  constructor(listener: ((progress: BlobProgress) => void) | undefined) {
    this.#listener = listener;
  }

  begin(digest: Digest, total: number): void {
    if (!this.#blobs.has(digest))
      this.#change(digest, { digest, total, transferred: 0, unpacked: 0, state: 'waiting', attempts: 1 }, true);
  }

  fetched(digest: Digest, { transferred, failures, pause }: DownloadProgress): void {
    const { state, total } = this.#of(digest);
    const now = transferred >= total ? 'unpacking' : 'downloading';
    const next = state === 'done' ? state : now;
    this.#update(digest, { transferred, attempts: failures + 1, state: next, ...(pause && { pause }) });
  }

  unpacked(digest: Digest, status: ImageProgress['status'], bytes: number): void {
    const { state } = this.#of(digest);
    if (status === 'present') this.#update(digest, { state: 'exists' });
    else if (status === 'done') this.#update(digest, { state: 'done' });
    else this.#update(digest, { unpacked: bytes, state });
  }

  sent(digest: Digest, state: BlobProgress['state'], transferred: number): void {
    this.#update(digest, { state, transferred });
  }

  /** A request that is no blob's waits, and so does everything. */
  pause(pause: { inMs: number; reason: string }): void {
    for (const digest of this.#blobs.keys()) this.#update(digest, { pause });
  }

  #of(digest: Digest): BlobProgress {
    return this.#blobs.get(digest) ?? { digest, total: 0, transferred: 0, unpacked: 0, state: 'waiting', attempts: 1 };
  }

  #update(digest: Digest, change: Partial<BlobProgress>): void {
    const { pause: _ended, ...before } = this.#of(digest);
    const after: BlobProgress = { ...before, ...change };
    this.#change(digest, after, after.state !== before.state || after.pause !== undefined);
  }

  #change(digest: Digest, progress: BlobProgress, atOnce: boolean): void {
    this.#blobs.set(digest, progress);
    const due = this.#due.get(digest) ?? atMostEvery(PROGRESS_INTERVAL);
    this.#due.set(digest, due);
    if (due() || atOnce) this.#listener?.({ ...progress });
  }
}
