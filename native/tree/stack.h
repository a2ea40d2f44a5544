// Stack: directories in overlayfs form seen as the kernel would merge them, without a mount: whiteouts (0:0 devices and
// the xattr form), opaque directories, redirects and metacopy. Layer 0 is the topmost. One thread at a time; owns a
// bounded number of descriptors, however deep the tree and however many the layers.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sys/result.h"
#include "sys/unique_fd.h"
#include "tree/whiteouts.h"

namespace layerstore::tree {

// One directory of one layer.
struct LayerDir;
using LayerDirRef = std::shared_ptr<LayerDir>;
struct LayerDir {
  LayerDir() = default;
  LayerDir(const LayerDir&) = delete;
  LayerDir& operator=(const LayerDir&) = delete;
  ~LayerDir();

  uint32_t layer = 0;
  uint32_t depth = 0;  // directories from the root to it
  LayerDirRef above;   // a directory on the way to it, from which it is opened; null: the root
  std::string path;    // below the layer's root; empty: the root
  bool xattr_whiteouts = false;
  UniqueFd fd;  // opened and closed by the Stack
};
// The directories that one merged directory is made of, topmost first.
using MergedDir = std::vector<LayerDirRef>;

// A file of one layer: a name in one of its directories. The name is empty for the directory itself.
struct LayerPlace {
  LayerDirRef directory;
  std::string name;
};

struct StackNode {
  enum class Kind : uint8_t { kNone, kWhiteout, kFile, kDirectory };
  Kind kind = Kind::kNone;  // kFile: everything that is no directory
  struct stat st {};        // of the topmost
  LayerPlace place;         // where the topmost lies; metadata and xattrs are its
  LayerPlace data;          // of a regular file with a metacopy xattr: where its data lies (no directory: nowhere)
  bool metacopy = false;
  bool redirected = false;  // a redirect led away from the same name below
  bool hides = false;       // a directory: opaque for what lies below
  MergedDir parts;          // of a directory

  [[nodiscard]] bool exists() const { return kind == Kind::kFile || kind == Kind::kDirectory; }
  [[nodiscard]] bool is_directory() const { return kind == Kind::kDirectory; }
};

struct StackChild {
  std::string name;
  uint32_t part = 0;  // index in the MergedDir of the first that has the name
  uint8_t type = 0;   // DT_*
};

// "a/b/c" -> "a/b"; "a" -> "".
std::string_view DirectoryPart(std::string_view path);

class Stack {
 public:
  static constexpr uint32_t kAllLayers = UINT32_MAX;
  // Longer paths inside a layer are refused (Fault::kLimit): no process could use them, and they cost memory squared.
  static constexpr size_t kMaxPathBytes = size_t{16} << 10;

  static Result<std::unique_ptr<Stack>> Open(const std::vector<std::string>& directories, Whiteouts whiteouts);

  [[nodiscard]] uint32_t layers() const { return static_cast<uint32_t>(roots_.size()); }
  // The merged root of layers [first, end).
  [[nodiscard]] MergedDir Root(uint32_t first, uint32_t end) const;

  // The directory at `path` of the layer that `near` belongs to. It is opened from `near`, or from what lies above
  // that, so that its depth costs nothing: the nearer, the better.
  [[nodiscard]] static LayerDirRef Directory(LayerDirRef near, std::string_view path);

  // Names in the parts of layers below number `below`, each once, in byte order, whiteouts included.
  Result<std::vector<StackChild>> List(const MergedDir& directory, uint32_t below = kAllLayers);

  // What `name` is in the merged directory, beginning at its part number `first_part`. `hides` and `redirected` of the
  // node tell what the layers before number `below` do to the others.
  Result<StackNode> Lookup(const MergedDir& directory, const std::string& name, uint32_t first_part = 0,
                           uint32_t below = kAllLayers);

  // An O_PATH descriptor of the directory, lent: it stays open for at least the next hundred calls.
  Result<int> Descriptor(const LayerDirRef& directory);
  // Opens a regular file for reading; never follows a link, never blocks.
  Result<UniqueFd> OpenFile(const LayerPlace& place);

  [[nodiscard]] const char* opaque_xattr() const { return user_ ? "user.overlay.opaque" : "trusted.overlay.opaque"; }

 private:
  struct Search;

  Stack() = default;
  Result<void> Open(LayerDir& directory, const LayerDir& from);
  Result<void> SearchLayer(const LayerDirRef& base, Search& search, StackNode& hit);
  Result<bool> SearchOne(const LayerDirRef& base, const std::string& name, const std::string& before,
                         const std::string& after, bool last, Search& search, StackNode& hit);
  Result<void> ReadRedirect(int directory, const std::string& name, const std::string& before, const std::string& after,
                            Search& search);
  Result<bool> IsXattrWhiteout(const LayerDirRef& base, int directory, const std::string& name, const struct stat& st);

  std::vector<LayerDirRef> roots_;
  // Those with a descriptor, oldest first. Marks are apart, so that a walk back up finds some of them open.
  std::deque<std::weak_ptr<LayerDir>> open_;
  std::deque<std::weak_ptr<LayerDir>> marks_;
  bool user_ = false;
  bool plain_ = false;  // Whiteouts::kApply: nothing of overlayfs has a meaning
};

}  // namespace layerstore::tree
