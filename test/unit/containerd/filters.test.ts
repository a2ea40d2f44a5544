/** containerd's filter language on snapshots. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseFilters } from '../../../src/containerd/filters.js';
import type { SnapshotRecord } from '../../../src/containerd/records.js';
import { LayerStoreError } from '../../../src/errors.js';

const snapshot: SnapshotRecord = {
  name: 'lab/1/a b',
  kind: 'active',
  parent: 'lab/0/base',
  created: '0',
  updated: '0',
  labels: { plain: 'yes', 'containerd.io/snapshot.ref': 'sha256:ab', dotted: 'a"b', empty: '' },
};

const CASES: readonly (readonly [filters: string[], fits: boolean])[] = [
  [[], true],
  [[''], true],
  [['kind==active'], true],
  [['kind==committed'], false],
  [['kind!=committed'], true],
  [['name=="lab/1/a b"'], true],
  [["name=='lab/1/a b'"], true],
  [['name==lab/1/a'], false],
  [['parent==lab/0/base'], true],
  [['parent==lab/0/base,kind==active'], true],
  [['parent==lab/0/base , kind == active'], true],
  [['parent==lab/0/base,kind==view'], false],
  [['kind==view', 'parent==lab/0/base'], true],
  [['labels."containerd.io/snapshot.ref"==sha256:ab'], true],
  [['labels."containerd.io/snapshot.ref"==sha256:ab,parent=="lab/0/base"'], true],
  [['labels.plain'], true],
  [['labels.plain,labels.missing'], false],
  [['labels.missing'], false],
  [['labels.missing!=x'], true],
  [['labels.missing~=.*'], false],
  [['labels.toString'], false],
  [['labels.dotted=="a\\"b"'], true],
  [['labels.dotted=="\\x61\\"\\u0062"'], true],
  [['labels.dotted=="\\141\\"b"'], true],
  [['name~=^lab/1/'], true],
  [['name~=/^lab\\/1\\//'], true],
  [['name~=|^lab/[0-9]+/a b$|'], true],
  [['name~="^other"'], false],
  [['unknown'], false],
  [['unknown==x'], false],
];

for (const [filters, fits] of CASES) {
  test(`${JSON.stringify(filters)} ${fits ? 'takes' : 'does not take'} the snapshot`, () => {
    assert.equal(parseFilters(filters)(snapshot), fits);
  });
}

for (const text of [
  '==x',
  'name=',
  'name=x',
  'name==',
  'name==x,',
  'name==x y',
  'labels.',
  'name=="x',
  'name=="\\q"',
  'name~=(',
  '"a',
  'name==/x/ ,',
  'name==x;kind==y z',
]) {
  test(`${JSON.stringify(text)} is refused`, () => {
    assert.throws(
      () => parseFilters([text]),
      (error) => LayerStoreError.is(error, 'ERR_INVALID_ARGUMENT'),
    );
  });
}
