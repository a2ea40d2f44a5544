// DiffStack: the directories of a DiffRequest as one Stack, upper ones first. One thread at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "layer/stack.h"
#include "layer/tree.h"
#include "layer/whiteout_filter.h"

namespace layerstore {

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

}  // namespace layerstore
