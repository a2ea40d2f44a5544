// Usage: what a directory holds. A plain walk by descriptors, one directory open at a time.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <string>
#include <unordered_set>
#include <vector>

#include "layer/files.h"
#include "layer/plain_walk.h"
#include "layer/tree.h"

namespace layerstore {

Result<TreeUsage> Usage(const std::string& directory, const CancelToken& cancel) {
  TreeUsage usage;
  std::unordered_set<ino_t> linked;
  const auto visit = [&](const PlainStep& step) -> Result<void> {
    if (step.kind == PlainStep::Kind::kLeave) return {};
    const struct stat& st = step.st;
    if (!S_ISDIR(st.st_mode) && st.st_nlink > 1 && !linked.insert(st.st_ino).second) return {};
    usage.inodes++;
    usage.allocated += static_cast<uint64_t>(st.st_blocks) * 512;
    if (!S_ISDIR(st.st_mode)) usage.size += static_cast<uint64_t>(st.st_size);
    return {};
  };
  LS_TRY(WalkPlain(directory, visit, cancel));
  return usage;
}

}  // namespace layerstore
