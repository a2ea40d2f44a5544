/** Change lists that the suites use: each list is one layer, on top of the one before. */
import type { TreeChange } from './change-list.js';
import {
  append,
  bytes,
  chmod,
  chown,
  createFile,
  link,
  mkdir,
  mknod,
  remove,
  rename,
  setxattr,
  sparseFile,
  symlink,
  touch,
} from './change-list.js';

/**
 * Several layers that meet every case in which a stack can differ from a flat tree: what is replaced by another type,
 * removed and made again, opaque directories, names that are no UTF-8, and each kind of file.
 */
export const sampleLayers: readonly (readonly TreeChange[])[] = [
  [
    mkdir('etc'),
    createFile('etc/passwd', 'root:x:0:0\n'),
    createFile('etc/shadow', 'root:*\n', 0o640),
    mkdir('bin'),
    createFile('bin/tool', '#!/bin/sh\nexit 0\n', 0o755),
    createFile('bin/suid', 'x', 0o4755),
    symlink('bin/sh', 'tool'),
    symlink('dangling', '/no/where'),
    mkdir('var'),
    mkdir('var/log', 0o1777),
    createFile('var/log/a', 'a'.repeat(70_000)),
    createFile('var/log/b', 'b'),
    mkdir('gone'),
    mkdir('gone/deep'),
    createFile('gone/deep/file', 'to be removed'),
    mkdir('opaque'),
    createFile('opaque/old', 'old'),
    mkdir('opaque/dir'),
    createFile('opaque/dir/older', 'older'),
    mkdir('kept'),
    createFile('kept/one', '1'),
    createFile('kept/two', '2'),
    createFile('turns-directory', 'file'),
    mkdir('turns-file'),
    createFile('turns-file/inside', 'inside'),
    symlink('turns-both', 'etc'),
  ],
  [
    createFile('etc/passwd', 'root:x:0:0\nuser:x:1000:1000\n'),
    remove('var/log/b'),
    append('var/log/a', 'more'),
    remove('gone'),
    remove('opaque'),
    mkdir('opaque', 0o700),
    createFile('opaque/new', 'new'),
    mkdir('opaque/dir'),
    remove('turns-directory'),
    mkdir('turns-directory'),
    createFile('turns-directory/inside', 'now'),
    remove('turns-file'),
    createFile('turns-file', 'now a file'),
    remove('turns-both'),
    mkdir('turns-both'),
    createFile('linked-1', 'one inode'),
    link('linked-1', 'linked-2'),
    link('linked-1', 'etc/linked-3'),
    chmod('bin/tool', 0o700),
    sparseFile('sparse', 3_000_000, [{ at: 1_000_000, content: 'middle' }]),
    createFile('empty'),
  ],
  [
    mkdir('gone'),
    createFile('gone/again', 'back'),
    createFile('var/log/b', 'b again'),
    remove('opaque/new'),
    createFile('opaque/old', 'old again'),
    rename('kept/one', 'kept/three'),
    remove('linked-2'),
    touch('empty', 1_234_567_890.5),
    remove('dangling'),
    symlink('dangling', 'elsewhere'),
    createFile('with blank', 'blank'),
    createFile('quote"back\\slash', 'x'),
    createFile(bytes(0x6e, 0xff, 0xfe), 'no UTF-8'),
    createFile('\u00c3\u00bcml\u00c3\u00a4ut', 'UTF-8 by its bytes'),
    createFile(`${'long-'.repeat(45)}name`, 'a long name'),
    mkdir('a'),
    mkdir('a/b'),
    mkdir('a/b/c'),
    createFile('a/b/c/d', 'deep'),
  ],
  [remove('a/b'), rename('a', 'renamed'), remove('gone/again'), createFile('renamed/new', 'n'), remove('kept/two')],
];

/** What only root may do. */
export const rootLayers: readonly (readonly TreeChange[])[] = [
  [
    mkdir('dev'),
    mknod('dev/null', 'c', 1, 3, 0o666),
    mknod('dev/disk', 'b', 7, 300, 0o660),
    mknod('dev/pipe', 'p'),
    createFile('owned', 'by another'),
    chown('owned', 1000, 2000),
    chown('dev', 7, 8),
    symlink('owned-link', 'owned'),
    chown('owned-link', 3, 4),
    createFile('big-ids', ''),
    chown('big-ids', 3_000_000, 4_000_000_000),
  ],
  [remove('dev/disk'), chown('owned', 0, 0), remove('dev/pipe'), mknod('dev/pipe', 'p', 0, 0, 0o644)],
];

/**
 * Extended attributes, those of capabilities among them. What only changes an attribute is no change in Docker's terms
 * (and so in none of ours), except for capabilities: the second list changes the file too.
 */
export const xattrLayers: readonly (readonly TreeChange[])[] = [
  [
    createFile('plain', 'p'),
    createFile('capable', 'c', 0o755),
    mkdir('dir'),
    setxattr('plain', 'user.note', 'a note'),
    setxattr('plain', 'user.empty', ''),
    setxattr('plain', 'user.binary', bytes(0, 1, 0xff, 0x3d, 0x0a)),
    setxattr('capable', 'security.capability', capability(0x20)),
    setxattr('dir', 'trusted.note', 'on a directory'),
  ],
  [
    append('plain', '!'),
    createFile('dir/in', 'i'),
    setxattr('plain', 'user.note', 'changed'),
    setxattr('plain', 'user.empty', undefined),
    setxattr('capable', 'security.capability', capability(0x21)),
  ],
];

/** Version 2 of the kernel's format (`linux/capability.h`): permitted bits, nothing inheritable. */
function capability(permitted: number): string {
  return bytes(1, 0, 0, 2, permitted, ...new Array<number>(15).fill(0));
}
