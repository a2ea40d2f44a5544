// Which xattrs of an archive are set, and when. Pure functions.
#pragma once

#include <sys/stat.h>

#include <string_view>

#include "tree/entry_metadata.h"

namespace layerstore::tree {

// overlayfs' own: an archive that could set them would hide or redirect what lies below.
inline bool IsOverlayXattr(std::string_view name) {
  return name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
}

// Set when all is made: everything made in the directory would inherit it.
inline constexpr std::string_view kDefaultAcl = "system.posix_acl_default";
inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";

// Whether an attribute of an archive is set on a file of this type (S_IFMT of `mode`); all others are counted and kept
// for export only. Told by name and type alone, so that ingest and verify of either engine decide the same: the four
// namespaces of xattr(7), user.* on files and directories, ACLs not on links, and nothing of overlayfs; without full
// privilege no trusted.*, and of security.* the capabilities alone, which take a namespace of one's own at least.
inline bool IsKeptXattr(std::string_view name, mode_t mode, Privilege privilege) {
  if (IsOverlayXattr(name)) return false;
  if (name == kAccessAcl) return !S_ISLNK(mode);
  if (name == kDefaultAcl) return S_ISDIR(mode);
  const auto in = [name](std::string_view space) { return name.starts_with(space) && name.size() > space.size(); };
  if (in("user.")) return S_ISREG(mode) || S_ISDIR(mode);
  if (privilege == Privilege::kFull) return in("trusted.") || in("security.");
  return privilege == Privilege::kNamespace && name == "security.capability";
}

}  // namespace layerstore::tree
