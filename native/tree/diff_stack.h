// DiffStack: the directories of a DiffRequest as one Stack, upper ones first. One thread at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tree/stack.h"
#include "tree/tree.h"

namespace layerstore::tree {

// WhiteoutFilter: tells which whiteouts of an upper directory hide something in a tree of its own choice (the parent of
// an init layer, which is no part of what the layer above it changes). Owns its Stack. One thread at a time.
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

struct DiffStack {
  std::unique_ptr<Stack> stack;
  uint32_t below = 0;  // layers from this number on are the lower ones
  bool plain = false;  // Whiteouts::kApply: the upper and the lower one are whole trees
  // The difference is found by comparing two whole trees.
  [[nodiscard]] bool compares() const { return plain && below < stack->layers(); }
  // Which whiteouts are written; none: all of them.
  std::unique_ptr<WhiteoutFilter> filter;
  // Whether the whiteout of `path` belongs to the difference.
  Result<bool> Needs(const std::string& path) const {
    return filter == nullptr ? Result<bool>(true) : filter->Needs(path);
  }
};

// Fault::kInvalid for a request that says nothing sensible.
Result<DiffStack> OpenDiff(const DiffRequest& request);

// PlainFinder: paths of the topmost layer of a plain stack, links not followed. Cheapest for paths in the order of a
// walk. One thread at a time; borrows the stack.
class PlainFinder {
 public:
  explicit PlainFinder(Stack& stack) : stack_(stack), near_(stack.Root(0, 1).front()) {}
  Result<StackNode> Find(const std::string& path);

 private:
  Stack& stack_;
  LayerDirRef near_;
};

Result<std::vector<ChangeRecord>> CompareStack(const DiffStack& diff, const CancelToken& cancel);

}  // namespace layerstore::tree
