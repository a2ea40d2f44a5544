// Whiteouts: how the removal of a name is written in a layer's directory, and in the names of a tar. Pure functions.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace layerstore::tree {

// How a whiteout reaches the directory: overlayfs form (0:0 device, trusted.* or user.* opaque xattr), or applied at
// once to a directory that holds the parent's tree too.
enum class Whiteouts : uint8_t { kOverlay, kOverlayUser, kApply };

[[nodiscard]] inline bool IsWhiteoutDevice(const struct stat& st) { return S_ISCHR(st.st_mode) && st.st_rdev == 0; }

inline constexpr std::string_view kWhiteoutPrefix = ".wh.";
// Other names with it are aufs' own.
inline constexpr std::string_view kWhiteoutMetaPrefix = ".wh..wh.";
inline constexpr std::string_view kOpaqueName = ".wh..wh..opq";

// Whether a tar's reader would take the last component of `path` for a whiteout.
[[nodiscard]] inline bool IsWhiteoutName(std::string_view path) {
  return path.substr(path.rfind('/') + 1).starts_with(kWhiteoutPrefix);
}
// "d/x" -> "d/.wh.x"
[[nodiscard]] inline std::string WhiteoutPath(const std::string& path) {
  std::string whiteout = path;
  whiteout.insert(path.rfind('/') + 1, kWhiteoutPrefix);
  return whiteout;
}

}  // namespace layerstore::tree
