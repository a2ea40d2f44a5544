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

Result<StackNode> FindPlain(Stack& stack, const std::string& path) {
  const size_t slash = path.rfind('/');
  MergedDir parent = stack.Root(0, 1);
  if (slash != std::string::npos) parent = {stack.Directory(0, path.substr(0, slash))};
  return stack.Lookup(parent, path.substr(slash + 1));
}

}  // namespace layerstore
