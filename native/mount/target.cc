#include "mount/target.h"

#include <limits.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "sys/fd_io.h"
#include "sys/mount_api.h"
#include "sys/open.h"

namespace layerstore::mount {

Result<void> Unmount(const std::string& target, bool detach) {
  const int flags = UMOUNT_NOFOLLOW | (detach ? MNT_DETACH : 0);
  if (target.size() < PATH_MAX) {
    if (umount2(target.c_str(), flags) != 0) return SysError("umount2", target);
    return {};
  }
  LS_ASSIGN(const sys::ParentPath parent, sys::OpenParent(target));
  if (umount2((sys::ProcFdPath(parent.directory.get()) + "/" + parent.name).c_str(), flags) != 0) {
    return SysError("umount2", target);
  }
  return {};
}

void DeferredTeardown::End() {
  sys::MutexLock lock(mutex_);
  for (size_t left = kept_.size(); left > 0 && !kept_.empty(); --left) {
    UniqueFd ending = std::move(kept_.front());
    kept_.pop_front();
    lock.Unlock();
    ending.reset();
    lock.Lock();
  }
}

Result<AttachedMount> MountOnNewTarget(const OverlayMount& mount, uint32_t target_mode) {
  const char* target = mount.target.c_str();
  if (mkdir(target, target_mode) != 0) return SysError("mkdir", mount.target);
  if (const Result<void> set = sys::SetNewMode(mount.target, target_mode); !set) {
    rmdir(target);
    return set.error();
  }
  const Result<MountTier> tier = MountOverlay(mount);
  if (!tier) {
    rmdir(target);
    return tier.error();
  }
  struct stat root {};
  if (stat(target, &root) != 0) {
    const Error error = SysError("stat", mount.target);
    // The first error is the one to tell; a mount point that stays is found by the next mount.
    if (Unmount(mount.target, true)) rmdir(target);
    return error;
  }
  return AttachedMount{*tier, root.st_dev};
}

Result<UnmountOutcome> UnmountAndRemove(const std::string& target, uint64_t device, DeferredTeardown* teardown) {
  struct stat root {};
  if (stat(target.c_str(), &root) != 0 || root.st_dev != device) return UnmountOutcome::kForeign;
  UniqueFd picked;
  if (teardown != nullptr) {
    // It holds the file system and not the mount, so that a busy target is found busy all the same.
    if (Result<UniqueFd> fd = sys::Fspick(target)) picked = std::move(*fd);
  }
  LS_TRY(Unmount(target, false));
  if (picked.valid()) teardown->Keep(std::move(picked));
  // With the directory go the copies of the mount in other namespaces.
  if (rmdir(target.c_str()) != 0 && errno != ENOENT) return UnmountOutcome::kTargetLeft;
  return UnmountOutcome::kRemoved;
}

}  // namespace layerstore::mount
