// Overlay mounts in three tiers. Functions block and keep no state; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sys/result.h"

namespace layerstore::mount {

// How the directories are passed to the kernel: descriptors (FSCONFIG_SET_FD, Linux 6.13 on), lowerdir+ with
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

// Returns the tier that was used. A failed mount leaves nothing.
Result<MountTier> MountOverlay(const OverlayMount& mount);

}  // namespace layerstore::mount
