// WhiteoutFilter: tells which whiteouts of an upper directory hide something in a tree of its own choice (the parent of
// an init layer, which is no part of what the layer above it changes). Owns its Stack. One thread at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "layer/stack.h"
#include "layer/tree.h"

namespace layerstore {

class WhiteoutFilter {
 public:
  static Result<std::unique_ptr<WhiteoutFilter>> Open(const TreeStack& tree);
  // Whether the tree has `path`, which has no leading slash. Cheapest for paths in the order of a walk.
  Result<bool> Needs(const std::string& path);

 private:
  explicit WhiteoutFilter(std::unique_ptr<Stack> stack);
  Result<void> Enter(std::string_view directory);

  std::unique_ptr<Stack> stack_;
  std::string entered_;  // the path that was looked up last
  // The merged directories on the way to it, the root first; an empty one: the tree has no such directory.
  struct Level {
    size_t path_bytes;
    MergedDir directory;
  };
  std::vector<Level> levels_;
};

}  // namespace layerstore
