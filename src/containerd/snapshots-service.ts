/** containerd's snapshots service: the messages of `proto/snapshots.proto` to calls of {@link Snapshots} and back. */
import type { MountSpecification } from '../driver/driver.js';
import { timestamp } from './clock.js';
import type { SnapshotKind, SnapshotRecord } from './records.js';
import type { Snapshots } from './snapshots.js';
import { streaming, unary, type Handlers, type Mount } from './wire.js';

export const SNAPSHOTS_SERVICE = { file: 'snapshots.proto', name: 'containerd.services.snapshots.v1.Snapshots' };

type Labels = Record<string, string>;

interface Info {
  name: string;
  parent: string;
  kind: number;
  created_at: { seconds: number; nanos: number };
  updated_at: { seconds: number; nanos: number };
  labels: Labels;
}

interface Mounts {
  mounts: Mount[];
}

const KINDS: Readonly<Record<SnapshotKind, number>> = { view: 1, active: 2, committed: 3 };
/** Snapshots in one message of a list. */
const LISTED_AT_ONCE = 100;

export function snapshotsService(snapshots: Snapshots): Handlers {
  return {
    Prepare: unary<{ key: string; parent: string; labels: Labels }, Mounts>(async ({ key, parent, labels }) =>
      mountsOf(await snapshots.prepare('active', key, parent, labels)),
    ),
    View: unary<{ key: string; parent: string; labels: Labels }, Mounts>(async ({ key, parent, labels }) =>
      mountsOf(await snapshots.prepare('view', key, parent, labels)),
    ),
    Mounts: unary<{ key: string }, Mounts>(async ({ key }) => mountsOf(await snapshots.mounts(key))),
    Commit: unary<{ name: string; key: string; labels: Labels; parent: string }, object>(
      async ({ name, key, labels, parent }) => {
        await snapshots.commit(name, key, labels, parent);
        return {};
      },
    ),
    Remove: unary<{ key: string }, object>(async ({ key }) => {
      await snapshots.remove(key);
      return {};
    }),
    Stat: unary<{ key: string }, { info: Info }>(async ({ key }) => ({ info: infoOf(snapshots.stat(key)) })),
    Update: unary<
      { info: { name: string; labels: Labels } | null; update_mask: { paths: string[] } | null },
      { info: Info }
    >(async ({ info, update_mask }) => {
      const updated = await snapshots.update(info?.name ?? '', info?.labels ?? {}, update_mask?.paths ?? []);
      return { info: infoOf(updated) };
    }),
    List: streaming<{ filters: string[] }, { info: Info[] }>(async function* ({ filters }) {
      const found = snapshots.list(filters);
      for (let at = 0; at < found.length; at += LISTED_AT_ONCE) {
        yield { info: found.slice(at, at + LISTED_AT_ONCE).map(infoOf) };
      }
    }),
    Usage: unary<{ key: string }, { size: number; inodes: number }>(({ key }) => snapshots.usage(key)),
    Cleanup: unary<object, object>(async () => {
      await snapshots.cleanup();
      return {};
    }),
  };
}

function mountsOf(mounts: readonly MountSpecification[]): Mounts {
  return {
    mounts: mounts.map(({ type, source, options }) => ({ type, source, target: '', options: [...options] })),
  };
}

function infoOf({ name, parent, kind, created, updated, labels }: SnapshotRecord): Info {
  return {
    name,
    parent,
    kind: KINDS[kind],
    created_at: timestamp(created),
    updated_at: timestamp(updated),
    labels,
  };
}
