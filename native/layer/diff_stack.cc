#include "layer/diff_stack.h"

#include <utility>

namespace layerstore {

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

}  // namespace layerstore
