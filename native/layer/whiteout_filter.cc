#include "layer/whiteout_filter.h"

#include <algorithm>
#include <utility>

namespace layerstore {

WhiteoutFilter::WhiteoutFilter(std::unique_ptr<Stack> stack)
    : stack_(std::move(stack)), directory_(stack_->Root(0, stack_->layers())) {}

Result<std::unique_ptr<WhiteoutFilter>> WhiteoutFilter::Open(const TreeStack& tree) {
  LS_ASSIGN(std::unique_ptr<Stack> stack, Stack::Open(tree.directories, tree.whiteouts));
  return std::unique_ptr<WhiteoutFilter>(new WhiteoutFilter(std::move(stack)));
}

Result<void> WhiteoutFilter::Enter(const std::string& directory) {
  if (directory == entered_) return {};
  directory_ = stack_->Root(0, stack_->layers());
  for (size_t begin = 0; begin < directory.size() && !directory_.empty();) {
    const size_t slash = std::min(directory.find('/', begin), directory.size());
    LS_ASSIGN(StackNode node, stack_->Lookup(directory_, directory.substr(begin, slash - begin)));
    directory_ = node.is_directory() ? std::move(node.parts) : MergedDir();
    begin = slash + 1;
  }
  entered_ = directory;
  return {};
}

Result<bool> WhiteoutFilter::Needs(const std::string& path) {
  const size_t slash = path.rfind('/');
  LS_TRY(Enter(slash == std::string::npos ? std::string() : path.substr(0, slash)));
  if (directory_.empty()) return false;
  LS_ASSIGN(const StackNode node, stack_->Lookup(directory_, path.substr(slash == std::string::npos ? 0 : slash + 1)));
  return node.exists();
}

}  // namespace layerstore
