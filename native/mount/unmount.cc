#include <limits.h>
#include <sys/mount.h>

#include "mount/overlay.h"
#include "sys/open.h"

namespace layerstore {

Result<void> Unmount(const std::string& target, bool detach) {
  const int flags = UMOUNT_NOFOLLOW | (detach ? MNT_DETACH : 0);
  if (target.size() < PATH_MAX) {
    if (umount2(target.c_str(), flags) != 0) return SysError("umount2", target);
    return {};
  }
  LS_ASSIGN(const ParentPath parent, OpenParent(target));
  if (umount2((ProcFdPath(parent.directory.get()) + "/" + parent.name).c_str(), flags) != 0) {
    return SysError("umount2", target);
  }
  return {};
}

}  // namespace layerstore
