#include "unpack/entry_name.h"

#include <algorithm>

namespace layerstore::unpack {
namespace {

Error Unsafe(const char* why, std::string_view name) { return DataError(Fault::kUnsafePath, why, std::string(name)); }

// Appends a component to `path`; false: it leaves the root.
bool Append(std::string_view component, bool absolute, std::string& path, size_t& depth) {
  if (component.empty() || component == ".") return true;
  if (component == "..") {
    if (depth == 0) return absolute;  // "/.." is the root
    const size_t slash = path.rfind('/');
    path.resize(slash == std::string::npos ? 0 : slash);
    depth--;
    return true;
  }
  if (!path.empty()) path += '/';
  path += component;
  depth++;
  return true;
}

NameKind Classify(std::string_view path) {
  if (path.empty()) return NameKind::kRoot;
  const std::string_view base = PathBase(path);
  if (base == tree::kOpaqueName && PathParent(path).find(tree::kWhiteoutMetaPrefix) == std::string_view::npos)
    return NameKind::kOpaque;
  if (path.starts_with(tree::kWhiteoutMetaPrefix) || path.find("/.wh..wh.") != std::string_view::npos)
    return NameKind::kDropped;
  return base.starts_with(tree::kWhiteoutPrefix) ? NameKind::kWhiteout : NameKind::kFile;
}

}  // namespace

std::string_view PathParent(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

std::string_view PathBase(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

std::string_view EntryPath::parent() const { return PathParent(path); }

std::string_view EntryPath::base() const {
  const std::string_view base = PathBase(path);
  return kind == NameKind::kWhiteout ? base.substr(tree::kWhiteoutPrefix.size()) : base;
}

Result<EntryPath> ParseLinkTarget(std::string_view name, const UnpackLimits& limits) {
  if (name.size() > limits.max_path_length)
    return DataError(Fault::kLimit, "maxPathLength", std::string(name.substr(0, 256)));
  if (name.find('\0') != std::string_view::npos) return Unsafe("a name with a NUL byte", name);
  EntryPath entry;
  size_t depth = 0;
  const bool absolute = name.starts_with('/');
  for (size_t at = 0; at <= name.size();) {
    const size_t slash = std::min(name.find('/', at), name.size());
    if (!Append(name.substr(at, slash - at), absolute, entry.path, depth))
      return Unsafe("the name leaves the layer", name);
    if (depth > limits.max_path_depth)
      return DataError(Fault::kLimit, "maxPathDepth", std::string(name.substr(0, 256)));
    at = slash + 1;
  }
  if (entry.path.empty()) entry.kind = NameKind::kRoot;
  return entry;
}

Result<EntryPath> ParseEntryName(std::string_view name, const UnpackLimits& limits) {
  LS_ASSIGN(EntryPath entry, ParseLinkTarget(name, limits));
  entry.kind = Classify(entry.path);
  if (entry.kind == NameKind::kWhiteout) {
    const std::string_view base = entry.base();
    if (base.empty() || base == "." || base == "..") return Unsafe("a whiteout of nothing", name);
  }
  return entry;
}

}  // namespace layerstore::unpack
