#include "layer/whiteout_filter.h"

#include <algorithm>
#include <utility>

namespace layerstore {

WhiteoutFilter::WhiteoutFilter(std::unique_ptr<Stack> stack) : stack_(std::move(stack)) {
  levels_.push_back({0, stack_->Root(0, stack_->layers())});
}

Result<std::unique_ptr<WhiteoutFilter>> WhiteoutFilter::Open(const TreeStack& tree) {
  LS_ASSIGN(std::unique_ptr<Stack> stack, Stack::Open(tree.directories, tree.whiteouts));
  return std::unique_ptr<WhiteoutFilter>(new WhiteoutFilter(std::move(stack)));
}

Result<void> WhiteoutFilter::Enter(std::string_view directory) {
  const auto differs = std::mismatch(entered_.begin(), entered_.end(), directory.begin(), directory.end());
  const auto same = static_cast<size_t>(differs.first - entered_.begin());
  const auto lies_in = [&](size_t bytes) {
    return bytes == 0 || (bytes <= same && (bytes == directory.size() || directory[bytes] == '/'));
  };
  while (!lies_in(levels_.back().path_bytes)) levels_.pop_back();
  entered_ = directory;
  while (levels_.back().path_bytes < directory.size()) {
    const Level& above = levels_.back();
    const size_t begin = above.path_bytes == 0 ? 0 : above.path_bytes + 1;
    const size_t end = std::min(directory.find('/', begin), directory.size());
    Level level{end, {}};
    if (!above.directory.empty()) {
      LS_ASSIGN(StackNode node, stack_->Lookup(above.directory, std::string(directory.substr(begin, end - begin))));
      if (node.is_directory()) level.directory = std::move(node.parts);
    }
    levels_.push_back(std::move(level));
  }
  return {};
}

Result<bool> WhiteoutFilter::Needs(const std::string& path) {
  LS_TRY(Enter(DirectoryPart(path)));
  const MergedDir& directory = levels_.back().directory;
  if (directory.empty()) return false;
  LS_ASSIGN(const StackNode node, stack_->Lookup(directory, path.substr(path.rfind('/') + 1)));
  return node.exists();
}

}  // namespace layerstore
