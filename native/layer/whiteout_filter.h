// WhiteoutFilter: tells which whiteouts of an upper directory hide something in a tree of its own choice (the parent of
// an init layer, which is no part of what the layer above it changes). Owns its Stack. One thread at a time.
#pragma once

#include <memory>
#include <string>

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
  Result<void> Enter(const std::string& directory);

  std::unique_ptr<Stack> stack_;
  std::string entered_;  // the path whose merged directory is kept; empty: the root
  MergedDir directory_;  // empty: the tree has no such directory
};

}  // namespace layerstore
