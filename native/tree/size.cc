// Sizes of trees.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "sys/directory.h"
#include "sys/unique_fd.h"
#include "tree/tree.h"
#include "tree/tree_walk.h"

namespace layerstore::tree {

Result<TreeUsage> Usage(const std::string& directory, const CancelToken& cancel) {
  TreeUsage usage;
  std::unordered_set<ino_t> linked;
  const auto visit = [&](const TreeStep& step) -> Result<void> {
    if (step.kind == TreeStep::Kind::kLeave) return {};
    const struct stat& st = step.st;
    if (!S_ISDIR(st.st_mode) && st.st_nlink > 1 && !linked.insert(st.st_ino).second) return {};
    usage.inodes++;
    usage.allocated += static_cast<uint64_t>(st.st_blocks) * 512;
    if (!S_ISDIR(st.st_mode)) usage.size += static_cast<uint64_t>(st.st_size);
    return {};
  };
  LS_TRY(WalkTree(directory, visit, cancel));
  return usage;
}

Result<uint64_t> TreeSize(int root, const InodeSet* made, const CancelToken& cancel) {
  struct Level {
    UniqueFd fd;
    std::unique_ptr<sys::DirectoryReader> reader;
  };
  std::vector<Level> levels;
  const auto enter = [&](int at, const char* name) -> Result<void> {
    UniqueFd fd(openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return SysError("openat", name);
    auto reader = std::make_unique<sys::DirectoryReader>(fd.get());
    levels.push_back({std::move(fd), std::move(reader)});
    return {};
  };
  LS_TRY(enter(root, "."));
  uint64_t size = 0;
  std::unordered_set<uint64_t> linked;
  while (!levels.empty()) {
    if (cancel.cancelled()) return DataError(Fault::kCancelled, "");
    sys::DirectoryEntry entry;
    LS_ASSIGN(const bool more, levels.back().reader->Next(entry));
    if (!more) {
      levels.pop_back();
      continue;
    }
    struct stat info;
    const int at = levels.back().fd.get();
    if (fstatat(at, entry.name.data(), &info, AT_SYMLINK_NOFOLLOW) != 0)
      return SysError("fstatat", std::string(entry.name));
    if (S_ISDIR(info.st_mode)) {
      LS_TRY(enter(at, entry.name.data()));
    } else if (made == nullptr || made->contains(info.st_ino)) {
      if (info.st_nlink > 1 && !linked.insert(info.st_ino).second) continue;
      size += static_cast<uint64_t>(info.st_size);
    }
  }
  return size;
}

}  // namespace layerstore::tree
