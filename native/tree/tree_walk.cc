#include "tree/tree_walk.h"

#include <dirent.h>
#include <fcntl.h>

#include <vector>

#include "sys/directory.h"
#include "sys/open.h"
#include "sys/unique_fd.h"
#include "tree/stack.h"

namespace layerstore::tree {
namespace {

constexpr size_t kMaxOpen = 64;

bool IsSpecial(uint8_t type) { return type == DT_CHR || type == DT_BLK || type == DT_FIFO || type == DT_SOCK; }

struct Level {
  UniqueFd fd;
  struct stat st {};
  std::string name;
  std::vector<std::string> names;
  size_t next = 0;
  size_t path_bytes = 0;
};

class Walker {
 public:
  Walker(const std::function<Result<void>(const TreeStep&)>& visit, const CancelToken& cancel, TreeSelection selection)
      : visit_(visit), cancel_(cancel), selection_(selection) {}
  Result<void> Run(const std::string& top);

 private:
  Result<void> Enter(UniqueFd fd, const struct stat& st, const std::string& name);
  Result<void> Child(const std::string& name);
  Result<void> Leave();

  const std::function<Result<void>(const TreeStep&)>& visit_;
  const CancelToken& cancel_;
  const TreeSelection selection_;
  std::vector<Level> levels_;
  TreeStep step_;
};

Result<void> Walker::Enter(UniqueFd fd, const struct stat& st, const std::string& name) {
  Level level;
  level.st = st;
  level.name = name;
  level.path_bytes = step_.path.size();
  sys::DirectoryReader reader(fd.get());
  sys::DirectoryEntry entry;
  for (;;) {
    LS_ASSIGN(const bool more, reader.Next(entry));
    if (!more) break;
    if (selection_ == TreeSelection::kDataOnly && IsSpecial(entry.type)) continue;
    level.names.emplace_back(entry.name);
  }
  level.fd = std::move(fd);
  levels_.push_back(std::move(level));
  // Far above, descriptors are given back; ".." leads there again.
  if (levels_.size() > kMaxOpen + 1) levels_[levels_.size() - 1 - kMaxOpen].fd.reset();
  return {};
}

Result<void> Walker::Child(const std::string& name) {
  Level& level = levels_.back();
  const int at = level.fd.get();
  if (fstatat(at, name.c_str(), &step_.st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return {};
    return SysError("fstatat", step_.path, name);
  }
  step_.path.resize(level.path_bytes);
  if (!step_.path.empty()) step_.path += '/';
  step_.path += name;
  if (step_.path.size() > Stack::kMaxPathBytes) return DataError(Fault::kLimit, "path length", step_.path);
  step_.kind = TreeStep::Kind::kEntry;
  step_.directory = at;
  step_.name = name;
  LS_TRY(visit_(step_));
  if (!S_ISDIR(step_.st.st_mode) || step_.st.st_dev != level.st.st_dev) return {};
  Result<UniqueFd> fd = sys::OpenAt(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!fd && fd.error().err == ENOENT) return {};
  if (!fd) return fd.error();
  return Enter(std::move(*fd), step_.st, name);
}

Result<void> Walker::Leave() {
  const Level done = std::move(levels_.back());
  levels_.pop_back();
  step_.kind = TreeStep::Kind::kLeave;
  step_.path.resize(done.path_bytes);
  step_.st = done.st;
  step_.name = done.name;
  step_.directory = done.fd.get();
  if (!levels_.empty()) {
    Level& parent = levels_.back();
    if (!parent.fd.valid()) {
      LS_ASSIGN(parent.fd, sys::OpenAt(done.fd.get(), "..", O_RDONLY | O_DIRECTORY));
      struct stat st {};
      if (fstat(parent.fd.get(), &st) != 0) return SysError("fstat", step_.path);
      if (st.st_ino != parent.st.st_ino || st.st_dev != parent.st.st_dev) {
        return DataError(Fault::kUnsafePath, "a directory was moved while its tree was walked", step_.path);
      }
    }
    step_.directory = parent.fd.get();
  }
  return visit_(step_);
}

Result<void> Walker::Run(const std::string& top) {
  LS_ASSIGN(UniqueFd fd, sys::OpenPath(top, O_RDONLY | O_DIRECTORY));
  if (fstat(fd.get(), &step_.st) != 0) return SysError("fstat", top);
  step_.directory = fd.get();
  LS_TRY(visit_(step_));
  LS_TRY(Enter(std::move(fd), step_.st, {}));
  while (!levels_.empty()) {
    if (cancel_.cancelled()) return Cancelled();
    Level& level = levels_.back();
    if (level.next < level.names.size()) {
      const std::string name = std::move(level.names[level.next++]);
      LS_TRY(Child(name));
    } else {
      LS_TRY(Leave());
    }
  }
  return {};
}

}  // namespace

Result<void> WalkTree(const std::string& top, const std::function<Result<void>(const TreeStep&)>& visit,
                      const CancelToken& cancel, TreeSelection selection) {
  return Walker(visit, cancel, selection).Run(top);
}

}  // namespace layerstore::tree
