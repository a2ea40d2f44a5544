// DiffStack: the directories of a DiffRequest as one Stack, upper ones first. One thread at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "layer/stack.h"
#include "layer/tree.h"

namespace layerstore {

struct DiffStack {
  std::unique_ptr<Stack> stack;
  uint32_t below = 0;   // layers from this number on are the lower ones
  bool plain = false;   // Whiteouts::kApply: the upper and the lower one are whole trees
  // The difference is found by comparing two whole trees.
  [[nodiscard]] bool compares() const { return plain && below < stack->layers(); }
};

// Fault::kInvalid for a request that says nothing sensible.
Result<DiffStack> OpenDiff(const DiffRequest& request);

// A path of the topmost layer of a plain stack, links not followed.
Result<StackNode> FindPlain(Stack& stack, const std::string& path);

Result<std::vector<ChangeRecord>> CompareStack(const DiffStack& diff, const CancelToken& cancel);

}  // namespace layerstore
