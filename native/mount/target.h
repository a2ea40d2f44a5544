// Mount points: unmounting, and a mount together with its mount point, made, looked at and removed in one go, so that
// callers on other threads wait once. Functions block; any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>

#include "mount/overlay.h"
#include "sys/mutex.h"
#include "sys/result.h"
#include "sys/unique_fd.h"

namespace layerstore::mount {

Result<void> Unmount(const std::string& target, bool detach);

// DeferredTeardown: keeps unmounted file systems alive until End(). The end of an overlay syncs the whole file system
// below it, which takes longer than the rest of an unmount; a caller that promised no durability need not wait for it.
// Any thread; End() and the destructor block.
class DeferredTeardown {
 public:
  void Keep(UniqueFd picked) {
    const sys::MutexLock lock(mutex_);
    kept_.push_back(std::move(picked));
  }

  // Ends the file systems that are kept now, one after the other, the oldest first. Several threads at it share the
  // work, and the journal's commits that their syncs wait for.
  void End();

 private:
  sys::Mutex mutex_;
  std::deque<UniqueFd> kept_ LS_GUARDED_BY(mutex_);
};

struct AttachedMount {
  MountTier tier = MountTier::kAuto;
  uint64_t device = 0;  // of the mount's root, as stat has it
};
// MountOverlay on a new directory; EEXIST (mkdir) if the name exists already. On failure the directory is removed.
Result<AttachedMount> MountOnNewTarget(const OverlayMount& mount, uint32_t target_mode);

enum class UnmountOutcome : uint8_t {
  kForeign,     // the mount there has another device number, or cannot be read: nothing was done
  kTargetLeft,  // unmounted, and the mount point could not be removed
  kRemoved,     // unmounted, and the mount point is gone
};
// Unmounts what has this device number and removes the mount point. With `teardown` the end of the file system is left
// to that, where the kernel can (fspick, Linux 5.2 on).
Result<UnmountOutcome> UnmountAndRemove(const std::string& target, uint64_t device,
                                        DeferredTeardown* teardown = nullptr);

}  // namespace layerstore::mount
