// What can be asked of layers' trees: the exact tar again, the tar of a difference, changes, sizes, copies, removal.
// Every function blocks, may be called from several threads at once for different trees, and leaves no descriptor
// behind.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hash/sha256.h"
#include "layer/ingest.h"
#include "sys/cancel.h"
#include "sys/stream.h"

namespace layerstore {

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
  // Tar and seal: a whiteout is kept only where this tree has the name that it hides. Without: every one.
  std::optional<TreeStack> whiteouts_of;
};

enum class ChangeKind : uint8_t { kModify, kAdd, kDelete };
struct ChangeRecord {
  std::string path;  // bytes, absolute inside the tree
  ChangeKind kind;
};

struct TarSummary {
  uint64_t bytes = 0;
  Sha256Digest diff_id{};
};

struct AssembleRequest {
  std::string tar_split_path;  // gzip
  std::string directory;
  Sha256Digest diff_id{};  // Fault::kCorrupt rather than a good end on other bytes
};
// tar-split record + tree -> the registered bytes.
Result<TarSummary> Assemble(const AssembleRequest& request, ByteSink& sink, const CancelToken& cancel);

// docs/on-disk-format.md, "The tar of an RW layer": the same bytes for the same tree.
Result<TarSummary> WriteTreeTar(const DiffRequest& request, ByteSink& sink, const CancelToken& cancel);

// Exactly Docker's set, in byte order of path.
Result<std::vector<ChangeRecord>> Changes(const DiffRequest& request, const CancelToken& cancel);

// Docker's size of what `upper` adds.
Result<uint64_t> DiffSize(const DiffRequest& request, const CancelToken& cancel);

struct SealRequest {
  DiffRequest diff;       // its upper.directories[0] is the RW layer's own (already at `directory` where `consume`)
  std::string directory;  // becomes the layer's tree
  bool consume = false;
  std::string tar_split_path;
  // `consume`, where not empty: a file that holds, before any of them is removed from `directory`, a tar of the
  // whiteouts that the layer does not need, so that the RW layer can be given back whole. Not made where there are
  // none.
  std::string dropped_path;
};
// The changes of an RW layer become a layer: cloned (or taken over), hashed and recorded in one pass. The result is
// that of Ingest over WriteTreeTar's bytes.
Result<IngestResult> Seal(const SealRequest& request, Progress& progress, const CancelToken& cancel);

struct TreeUsage {
  uint64_t size = 0;  // apparent, no directories, hard links once
  uint64_t allocated = 0;
  uint64_t inodes = 0;
};
Result<TreeUsage> Usage(const std::string& directory, const CancelToken& cancel);

// Content of `source` into the existing `target`: reflink, else copy_file_range; hard links, xattrs, sparse files,
// times kept.
Result<void> CopyTree(const std::string& source, const std::string& target, const CancelToken& cancel);

// Follows no link, crosses no mount; a missing path is no error.
Result<void> RemoveTree(const std::string& path, const CancelToken& cancel);
// The same for `name` in an open directory; `path` is for errors.
Result<void> RemoveTreeAt(int directory, const std::string& name, const std::string& path, const CancelToken& cancel);

struct TreeProblem {
  std::string path, what, expected, found;
  bool cosmetic = false;
};
struct VerifyRequest {
  std::string tar_split_path;
  std::string directory;
  Whiteouts whiteouts = Whiteouts::kOverlay;
  Sha256Digest diff_id{};
  uint64_t bytes_per_second = 0;  // 0: no budget
};
Result<std::vector<TreeProblem>> VerifyTree(const VerifyRequest& request, const CancelToken& cancel);

}  // namespace layerstore
