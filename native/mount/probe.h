// What this kernel offers for overlay mounts, probed once a process without mounting anything. Any thread.
#pragma once

#include <string>

#include "mount/overlay.h"

namespace layerstore::mount {

struct MountProbe {
  // "yes", or why not.
  std::string fsopen;
  std::string lowerdir_plus;
  std::string fsconfig_fd;
};
const MountProbe& ProbeMount();

// The first tier that works: descriptors, lowerdir+, classic.
MountTier BestMountTier();

}  // namespace layerstore::mount
