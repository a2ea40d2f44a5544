/** Every command, in the order of the overview. */
import type { Command } from '../command.js';
import { bench } from './bench.js';
import { buildImage } from './build-image.js';
import { commit } from './commit.js';
import { completion } from './completion.js';
import { containerd } from './containerd.js';
import { create } from './create.js';
import { df } from './df.js';
import { diff } from './diff.js';
import { exportTar } from './export.js';
import { gc } from './gc.js';
import { history } from './history.js';
import { images } from './images.js';
import { info } from './info.js';
import { inspect } from './inspect.js';
import { load } from './load.js';
import { ls } from './ls.js';
import { mount, umount } from './mount.js';
import { pull } from './pull.js';
import { push } from './push.js';
import { register } from './register.js';
import { report } from './report.js';
import { rm } from './rm.js';
import { save } from './save.js';
import { tag } from './tag.js';
import { unshare } from './unshare.js';
import { verify } from './verify.js';

export const commands: readonly Command[] = [
  load,
  save,
  pull,
  push,
  register,
  images,
  tag,
  history,
  report,
  ls,
  inspect,
  exportTar,
  create,
  mount,
  umount,
  diff,
  commit,
  buildImage,
  rm,
  verify,
  gc,
  info,
  df,
  containerd,
  unshare,
  bench,
  completion(() => commands),
];
