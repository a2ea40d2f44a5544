// What can be asked of layers' trees: changes, sizes, copies, removal.
// Every function blocks, may be called from several threads at once for different trees, and leaves no descriptor
// behind.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sys/control.h"
#include "tree/inodes.h"
#include "tree/whiteouts.h"

namespace layerstore::tree {

// Directories stacked in overlayfs form, upper first; with Whiteouts::kApply exactly one plain directory.
struct TreeStack {
  std::vector<std::string> directories;
  Whiteouts whiteouts = Whiteouts::kOverlay;
};

// Overlay form: `upper` lies on top of `lower` and holds only what changed. kApply: both are whole trees.
// An empty `lower`: everything in `upper` is an addition.
struct DiffRequest {
  TreeStack upper;
  TreeStack lower;
  bool sparse = false;  // tar only: holes as GNU PAX 1.0 sparse entries
  // Tar and commit: a whiteout is kept only where this tree has the name that it hides. Without: every one.
  std::optional<TreeStack> whiteouts_of;
};

enum class ChangeKind : uint8_t { kModify, kAdd, kDelete };
struct ChangeRecord {
  std::string path;  // bytes, absolute inside the tree
  ChangeKind kind;
};

// Exactly Docker's set, in byte order of path.
Result<std::vector<ChangeRecord>> Changes(const DiffRequest& request, const CancelToken& cancel);

// Docker's size of what `upper` adds.
Result<uint64_t> DiffSize(const DiffRequest& request, const CancelToken& cancel);

struct TreeUsage {
  uint64_t size = 0;  // apparent, no directories, hard links once
  uint64_t allocated = 0;
  uint64_t inodes = 0;
};
Result<TreeUsage> Usage(const std::string& directory, const CancelToken& cancel);
// Apparent size of every inode in the tree that is no directory, hard links once; `made`: only of these.
Result<uint64_t> TreeSize(int root, const InodeSet* made, const CancelToken& cancel);

// Content of `source` into the existing `target`: reflink, else copy_file_range; hard links, xattrs, sparse files,
// times kept.
Result<void> CopyTree(const std::string& source, const std::string& target, const CancelToken& cancel);

// Follows no link, crosses no mount; a missing path is no error.
Result<void> RemoveTree(const std::string& path, const CancelToken& cancel);
// The same for `name` in an open directory; `path` is for errors.
Result<void> RemoveTreeAt(int directory, const std::string& name, const std::string& path, const CancelToken& cancel);

}  // namespace layerstore::tree
