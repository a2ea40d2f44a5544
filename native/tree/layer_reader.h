// LayerReader: opens the files that a tar-split record names, below a layer's directory and nowhere else: links resolve
// inside it, the last component is never followed. Cheapest for entries in the order of a walk, however deep. One
// thread at a time; owns its descriptors.
#pragma once

#include <memory>
#include <string>

#include "sys/unique_fd.h"
#include "tarsplit/reader.h"
#include "tree/stack.h"

namespace layerstore::tree {

class LayerReader {
 public:
  static Result<std::unique_ptr<LayerReader>> Open(const std::string& directory);
  // The regular file of a record's entry, of exactly the recorded size; anything else is Fault::kCorrupt.
  Result<UniqueFd> OpenRecorded(const tarsplit::Entry& entry);
  // The directory that holds the entry, and its name there; Fault::kCorrupt where there is none. The descriptor is lent
  // until the next call.
  struct Place {
    int directory = -1;
    std::string name;
    bool linked = false;  // a link leads to the directory
  };
  Result<Place> Find(const tarsplit::Entry& entry);

 private:
  LayerReader() = default;
  Result<int> OpenParent(std::string_view path);

  UniqueFd root_;
  std::unique_ptr<Stack> stack_;  // of the one directory
  LayerDirRef near_;              // the last parent that no link led to
  UniqueFd linked_;               // the last one that a link led to
  std::string linked_path_;
  std::string clean_;
};

// A directory below `root`; links on the way resolve as if `root` were the root of everything. Where the kernel lacks
// openat2 (or a test says so) the path is walked component by component.
Result<UniqueFd> OpenInLayer(int root, const std::string& path, bool force_component_walk = false);

}  // namespace layerstore::tree
