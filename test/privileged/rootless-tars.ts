/** Archives that ask for what only the machine's root can do. */
import { buildTar } from '../../src/testing/index.js';

export const OPTION = { ignore_chown_errors: 'true' };
const xattr = (name: string, value: string) => ({ pax: { [`SCHILY.xattr.${name}`]: value } });

export const TARS = {
  base: buildTar([
    { name: 'null', type: '3', devmajor: 1, devminor: 3, mode: 0o666 },
    { name: 'sda', type: '4', devmajor: 8, devminor: 0, mode: 0o660, gid: 6 },
    { name: 'null2', type: '1', linkname: 'null', mode: 0o666 },
    { name: 'fifo', type: '6' },
    { name: 'su', content: 'x', mode: 0o4755 },
    { name: 'sealed', content: 'x', mode: 0 },
    { name: 'closed', type: '5', mode: 0o500 },
    { name: 'closed/in', content: 'y', uid: 33, gid: 33 },
    { name: 'attr', content: 'x', ...xattr('trusted.mine', 'v') },
    { name: 'user', content: 'x', ...xattr('user.mine', 'v') },
    { name: 'link', type: '2', linkname: 'su', uid: 100 },
    { name: 'opaque', type: '5' },
    { name: 'opaque/old', content: 'o' },
    { name: 'gone', content: 'g' },
  ]),
  top: buildTar([
    { name: '.wh.gone' },
    { name: 'opaque', type: '5' },
    { name: 'opaque/.wh..wh..opq' },
    { name: 'opaque/new', content: 'n', uid: 1000, gid: 1000 },
  ]),
  /** Of an owner that the test's namespace does not have. */
  foreign: buildTar([{ name: 'theirs', content: 'x', uid: 70_000 }]),
};
