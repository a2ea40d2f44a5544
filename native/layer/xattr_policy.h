// Which xattrs of an archive are set, and when. Pure functions.
#pragma once

#include <string_view>

namespace layerstore {

// overlayfs' own: an archive that could set them would hide or redirect what lies below.
inline bool IsOverlayXattr(std::string_view name) {
  return name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
}

// Set when all is made: everything made in the directory would inherit it.
inline constexpr std::string_view kDefaultAcl = "system.posix_acl_default";
inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";

}  // namespace layerstore
