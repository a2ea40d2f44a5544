import assert from 'node:assert/strict';
import { test } from 'node:test';
import { missingForQuota, quotaFacts, type QuotaFacts } from '../../../src/driver/file-system.js';
import { tempDir } from '../../support/temp.js';

const CASES: { name: string; facts: QuotaFacts; says: RegExp | undefined }[] = [
  {
    name: 'another file system',
    facts: { fileSystem: 'tmpfs', mountOptions: ['rw'], kernel: undefined },
    says: /^only XFS and ext4 have, and "\/home" is on tmpfs$/,
  },
  {
    name: 'XFS, a kernel without',
    facts: { fileSystem: 'xfs', mountOptions: ['rw', 'noquota'], kernel: false },
    says: /^the running kernel lacks for XFS: it was built without CONFIG_XFS_QUOTA$/,
  },
  {
    name: 'ext4, a kernel without',
    facts: { fileSystem: 'extfs', mountOptions: ['rw'], kernel: false },
    says: /^the running kernel lacks for ext4: .*CONFIG_QUOTA and CONFIG_QFMT_V2$/,
  },
  {
    name: 'a kernel that has them, or does not tell, and no mount option',
    facts: { fileSystem: 'extfs', mountOptions: ['rw'], kernel: undefined },
    says: /^ext4 has only with the mount option "prjquota"/,
  },
  { name: 'everything there', facts: { fileSystem: 'xfs', mountOptions: ['prjquota'], kernel: true }, says: undefined },
];

for (const { name, facts, says } of CASES) {
  test(`project quotas: ${name}`, () => {
    const said = missingForQuota('/home', facts);
    if (says === undefined) assert.equal(said, undefined);
    else assert.match(said ?? '', says);
  });
}

test('project quotas: what is found of a real directory', async (t) => {
  const { fileSystem, mountOptions } = await quotaFacts(tempDir(t, 'quota'));
  assert.match(fileSystem, /^\w+$/);
  assert.ok(
    mountOptions.some((option) => option === 'rw' || option === ''),
    String(mountOptions),
  );
});
