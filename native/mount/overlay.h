// Overlay mounts in three tiers, unmounting, and the mount table. Functions block and keep no state; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mount/deferred_teardown.h"
#include "sys/result.h"

namespace layerstore {

// How the kernel is told about the directories: descriptors (FSCONFIG_SET_FD, Linux 6.13 on), lowerdir+ with
// /proc/thread-self/fd/N (6.7 on), classic mount(2) with short relative paths from a thread of its own.
enum class MountTier : uint8_t { kAuto, kFd, kLowerdirPlus, kClassic };

struct OverlayMount {
  std::string upper;  // empty: a read-only mount of `lowers`
  std::string work;
  std::vector<std::string> lowers;  // nearest first
  std::string target;
  std::vector<std::string> options;  // validated above: index=off, volatile, nodev, context=…
  MountTier tier = MountTier::kAuto;
};

// The tier that was used. A mount that failed half-way leaves nothing.
Result<MountTier> MountOverlay(const OverlayMount& mount);

Result<void> Unmount(const std::string& target, bool detach);

struct AttachedMount {
  MountTier tier = MountTier::kAuto;
  uint64_t device = 0;  // of the mount's root, as stat has it
};
// MountOverlay on a directory that is made for it; EEXIST (mkdir) where there is one, whatever it is. On failure it is
// gone.
Result<AttachedMount> MountOnNewTarget(const OverlayMount& mount, uint32_t target_mode);

enum class UnmountOutcome : uint8_t {
  kForeign,     // what is there has another device number, or cannot be looked at: nothing was done
  kTargetLeft,  // unmounted, and the mount point could not be removed
  kRemoved,     // unmounted, and the mount point is gone
};
// Unmounts what has this device number and removes the mount point. With `teardown` the end of the file system is left
// to that, where the kernel can (fspick, Linux 5.2 on).
Result<UnmountOutcome> UnmountAndRemove(const std::string& target, uint64_t device,
                                        DeferredTeardown* teardown = nullptr);

struct MountInfo {
  uint64_t id = 0, parent = 0;
  std::string fs_type, source, target, root, options;
};
// This process' mount table at or below `directory`, in mount order.
Result<std::vector<MountInfo>> ReadMounts(const std::string& directory);

struct Holder {
  int pid = 0;
  std::string command;
};
// Processes that keep `target` busy: cwd, root, open files, maps below it.
std::vector<Holder> FindHolders(const std::string& target);

}  // namespace layerstore
