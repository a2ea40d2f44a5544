// A mount together with its mount point: made, looked at and removed in one go, so that callers on other threads wait
// once.
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "mount/overlay.h"
#include "sys/files.h"
#include "sys/mount_api.h"

namespace layerstore {

Result<AttachedMount> MountOnNewTarget(const OverlayMount& mount, uint32_t target_mode) {
  const char* target = mount.target.c_str();
  if (mkdir(target, target_mode) != 0) return SysError("mkdir", mount.target);
  if (const Result<void> set = SetNewMode(mount.target, target_mode); !set) {
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
    if (Result<UniqueFd> fd = Fspick(target)) picked = std::move(*fd);
  }
  LS_TRY(Unmount(target, false));
  if (picked.valid()) teardown->Keep(std::move(picked));
  // With the directory go the copies of the mount in other namespaces.
  if (rmdir(target.c_str()) != 0 && errno != ENOENT) return UnmountOutcome::kTargetLeft;
  return UnmountOutcome::kRemoved;
}

}  // namespace layerstore
