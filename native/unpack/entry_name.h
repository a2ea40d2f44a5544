// What an entry's name means: a path below the layer's root, and whether it is a whiteout. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "sys/result.h"
#include "unpack/ingest.h"

namespace layerstore::unpack {

enum class NameKind : uint8_t {
  kFile,
  kRoot,      // "." and what else is the root itself
  kWhiteout,  // `.wh.X`: base is X
  kOpaque,    // `.wh..wh..opq`
  kDropped,   // other `.wh..wh.*`: aufs' own
};

struct EntryPath {
  std::string path;  // cleaned, relative, no leading or trailing slash; empty: the root
  NameKind kind = NameKind::kFile;

  [[nodiscard]] std::string_view parent() const;
  [[nodiscard]] std::string_view base() const;
};

// As Docker: `.` and empty components are dropped, `..` is resolved by text, an absolute name stays inside. kUnsafePath
// for a name that leaves the root, has a NUL byte, or is a whiteout of nothing (`.wh.`, `.wh..`, `.wh...`).
Result<EntryPath> ParseEntryName(std::string_view name, const UnpackLimits& limits);
// The same for the target of a hard link, where a whiteout's name is a name like any other.
Result<EntryPath> ParseLinkTarget(std::string_view name, const UnpackLimits& limits);

std::string_view PathParent(std::string_view path);
std::string_view PathBase(std::string_view path);

}  // namespace layerstore::unpack
