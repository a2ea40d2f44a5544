/** Our descriptions of containerd's services, field by field beside those of Debian's package. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { loadSync, type PackageDefinition } from '@grpc/proto-loader';
import { PROTO_DIRECTORY } from '../../../src/containerd/grpc.js';

const GO = '/usr/share/gocode/src';
const API = `${GO}/github.com/containerd/containerd/api`;
/** Ours -> theirs. */
const FILES: Readonly<Record<string, readonly string[]>> = {
  'snapshots.proto': ['services/snapshots/v1/snapshots.proto'],
  'diff.proto': ['services/diff/v1/diff.proto'],
  'content.proto': ['services/content/v1/content.proto'],
  'types.proto': ['types/mount.proto', 'types/descriptor.proto'],
};
/** Of later releases than the package's 1.6; a program that does not know a field passes over it. */
const LATER = [
  'containerd.services.diff.v1.ApplyRequest.sync_fs = 4: LABEL_OPTIONAL TYPE_BOOL ',
  'containerd.services.diff.v1.DiffRequest.source_date_epoch = 6: LABEL_OPTIONAL TYPE_MESSAGE google.protobuf.Timestamp',
  'containerd.services.snapshots.v1.CommitSnapshotRequest.parent = 5: LABEL_OPTIONAL TYPE_STRING ',
];

interface MessageShape {
  field: { name: string; number: number; label: string; type: string; typeName: string }[];
  nestedType: (MessageShape & { name: string })[];
}

function fields(name: string, { field, nestedType }: MessageShape): string[] {
  return [
    ...field.map((each) => `${name}.${each.name} = ${each.number}: ${each.label} ${each.type} ${each.typeName}`),
    // A map's entries are messages inside.
    ...nestedType.flatMap((each) => fields(`${name}.${each.name}`, each)),
  ];
}

/** What goes over the wire, a line for each field, value and method; by full name of message, enum or service. */
function describedIn(paths: readonly string[], directories: readonly string[]): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const path of paths) {
    const definition: PackageDefinition = loadSync(path, { keepCase: true, includeDirs: [...directories] });
    for (const [name, object] of Object.entries(definition)) {
      if (!name.startsWith('containerd.')) continue;
      if (!('format' in object)) {
        const methods = Object.values(object).map((method) => {
          const [request, response] = [method.requestType, method.responseType].map(
            (each) => (each as { type?: { name?: string } } | undefined)?.type?.name,
          );
          return `${method.path} ${method.requestStream ? 'stream ' : ''}${request}: ${method.responseStream ? 'stream ' : ''}${response}`;
        });
        found.set(name, methods);
      } else if ('value' in object.type) {
        const { value } = object.type as { value: { name: string; number: number }[] };
        found.set(
          name,
          value.map((each) => `${name}.${each.name} = ${each.number}`),
        );
      } else {
        found.set(name, fields(name, object.type as MessageShape));
      }
    }
  }
  return found;
}

for (const [file, theirs] of Object.entries(FILES)) {
  it(`${file} has the names, numbers and types of the wire`, () => {
    assert.ok(existsSync(API), 'apt-get install golang-github-containerd-containerd-dev');
    const reference = describedIn(
      theirs.map((path) => join(API, path)),
      [GO, `${GO}/github.com/gogo/protobuf`],
    );
    const described = describedIn([join(PROTO_DIRECTORY, file)], [PROTO_DIRECTORY]);
    assert.ok(described.size > 1);
    for (const [name, lines] of described) {
      const expected = reference.get(name);
      // The descriptor comes with types.proto and is of no use to the snapshots service.
      if (expected === undefined && name.startsWith('containerd.types.') && file !== 'types.proto') continue;
      assert.ok(expected !== undefined, `containerd has no ${name}`);
      assert.deepEqual(
        lines.filter((line) => !expected.includes(line) && !LATER.includes(line)),
        [],
        `in containerd: ${expected.join('\n')}`,
      );
      // One method of the content service is called; everything else is whole.
      if (file === 'content.proto') continue;
      assert.deepEqual(
        expected.filter((line) => !lines.includes(line)),
        [],
        name,
      );
    }
  });
}

it('every description is compared', () => {
  assert.deepEqual(readdirSync(PROTO_DIRECTORY).sort(), Object.keys(FILES).sort());
});
