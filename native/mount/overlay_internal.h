// What the tiers of an overlay mount share. Included by native/mount alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mount/overlay.h"
#include "sys/unique_fd.h"

namespace layerstore::mount {

// OverlayMount.options, split into what overlayfs reads and what belongs to the mount itself.
struct SplitOptions {
  uint64_t attributes = 0;           // MOUNT_ATTR_*
  unsigned long classic_flags = 0;   // MS_*, the same set
  std::vector<std::string> overlay;  // as given
};
SplitOptions SplitMountOptions(const std::vector<std::string>& options, bool read_only);

// A directory told as an open one above it and a short tail, so that the mount table still shows which one it is
// although the whole path may be longer than an option can be: `<fd of overlay2>/<id>/diff`. An empty tail: the
// directory itself.
struct Anchor {
  UniqueFd fd;
  std::string tail;
  // `prefix`, the descriptor's number, and the tail.
  [[nodiscard]] std::string Text(const std::string& prefix) const;
};
Result<Anchor> AnchorDirectory(const std::string& path);

// Overlayfs that cannot make its work directory (a full disk, no inodes) mounts read-only and says so in the kernel's
// log alone. `fd`: the new mount's root. Nothing to complain of where read-only was asked for.
Result<void> RequireWritable(int fd, const OverlayMount& mount, const SplitOptions& options);

Result<void> MountWithContext(const OverlayMount& mount, bool by_descriptor);
Result<void> MountClassic(const OverlayMount& mount);

}  // namespace layerstore::mount
