#include "tree/diff_stack.h"

#include <algorithm>
#include <utility>

namespace layerstore::tree {

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

Result<DiffStack> OpenDiff(const DiffRequest& request) {
  DiffStack diff;
  diff.plain = request.upper.whiteouts == Whiteouts::kApply;
  if (request.upper.directories.empty()) return DataError(Fault::kInvalid, "no upper directory");
  if (diff.plain && (request.upper.directories.size() > 1 || request.lower.directories.size() > 1)) {
    return DataError(Fault::kInvalid, "plain trees are compared one with one");
  }
  std::vector<std::string> directories = request.upper.directories;
  diff.below = static_cast<uint32_t>(directories.size());
  directories.insert(directories.end(), request.lower.directories.begin(), request.lower.directories.end());
  LS_ASSIGN(diff.stack, Stack::Open(directories, request.upper.whiteouts));
  if (request.whiteouts_of) {
    LS_ASSIGN(diff.filter, WhiteoutFilter::Open(*request.whiteouts_of));
  }
  return diff;
}

Result<StackNode> PlainFinder::Find(const std::string& path) {
  near_ = Stack::Directory(near_, DirectoryPart(path));
  return stack_.Lookup({near_}, path.substr(path.rfind('/') + 1));
}

}  // namespace layerstore::tree
