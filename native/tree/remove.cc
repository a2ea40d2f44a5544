// RemoveTree: by descriptors from the top down, so that no link is followed, whatever happens to the tree meanwhile.
// Deep trees take neither stack nor descriptors: from a certain depth on, directories on the way are closed and found
// again by "..".
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "sys/directory.h"
#include "sys/open.h"
#include "tree/tree.h"

namespace layerstore::tree {
namespace {

constexpr size_t kMaxOpen = 64;
constexpr size_t kNamesBytes = size_t{64} << 10;

// Directories that somebody fills while they are removed are emptied again, this often in all.
constexpr int kMaxRounds = 1000;

struct Level {
  UniqueFd fd;       // closed in levels far above the current one
  std::string name;  // in the level above
  dev_t device = 0;
  ino_t inode = 0;
  bool read = false;
  std::vector<std::string> directories;  // still to be removed
};

class Remover {
 public:
  Remover(UniqueFd top, std::string path, const CancelToken& cancel) : cancel_(cancel), path_(std::move(path)) {
    levels_.emplace_back().fd = std::move(top);
  }
  // Leaves the top directory, empty.
  Result<void> Run(dev_t device);

 private:
  Result<void> ReadLevel();
  Result<void> Descend(const std::string& name);
  Result<void> Ascend();
  Result<bool> Unlink(const std::string& name, bool& directory);

  const CancelToken& cancel_;
  std::string path_;  // of the whole tree, for errors
  dev_t device_ = 0;
  int rounds_ = 0;
  std::vector<Level> levels_;
};

// Immutable and append-only files refuse removal even to root; the flags are taken off.
bool ClearFlags(int directory, const std::string& name) {
  const UniqueFd fd(openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return false;
  int flags = 0;
  if (ioctl(fd.get(), FS_IOC_GETFLAGS, &flags) != 0 || (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)) == 0) return false;
  flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
  return ioctl(fd.get(), FS_IOC_SETFLAGS, &flags) == 0;
}

// True where the name is gone. `directory`: it is one, to be emptied first.
Result<bool> Remover::Unlink(const std::string& name, bool& directory) {
  const int at = levels_.back().fd.get();
  for (int attempt = 0;; attempt++) {
    if (unlinkat(at, name.c_str(), directory ? AT_REMOVEDIR : 0) == 0 || errno == ENOENT) return true;
    const int err = errno;
    if (!directory && (err == EISDIR || err == EPERM)) {
      struct stat st {};
      if (fstatat(at, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) {
        directory = true;
        return false;
      }
    }
    if (directory && (err == ENOTEMPTY || err == EEXIST)) return false;
    // The file or the directory it is in.
    if (err == EPERM && attempt == 0) {
      const bool cleared = ClearFlags(at, name);
      if (ClearFlags(at, ".") || cleared) continue;
    }
    errno = err;
    return SysError(directory ? "rmdir" : "unlink", path_, name);
  }
}

Result<void> Remover::Descend(const std::string& name) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
  const int at = levels_.back().fd.get();
  Level level;
  level.name = name;
  level.fd = UniqueFd(sys::HaveOpenat2() ? sys::RawOpenat2(at, name.c_str(), kFlags, 0, sys::kResolveNoXdev)
                                         : openat(at, name.c_str(), kFlags | O_CLOEXEC));
  if (!level.fd.valid()) {
    if (errno == ENOENT) return {};
    return SysError("open", path_, name);
  }
  struct stat st {};
  if (fstat(level.fd.get(), &st) != 0) return SysError("fstat", path_, name);
  if (st.st_dev != device_) {
    errno = EXDEV;
    return SysError("open", path_, name);
  }
  level.device = st.st_dev;
  level.inode = st.st_ino;
  levels_.push_back(std::move(level));
  // The top stays open: it is what everything is relative to.
  if (levels_.size() > kMaxOpen + 1) levels_[levels_.size() - kMaxOpen].fd.reset();
  return {};
}

// Out of an emptied directory, which goes. A parent that was closed on the way down is found by ".." and must be the
// same.
Result<void> Remover::Ascend() {
  const Level done = std::move(levels_.back());
  levels_.pop_back();
  Level& parent = levels_.back();
  if (!parent.fd.valid()) {
    LS_ASSIGN(parent.fd, sys::OpenAt(done.fd.get(), "..", O_RDONLY | O_DIRECTORY));
    struct stat st {};
    if (fstat(parent.fd.get(), &st) != 0) return SysError("fstat", path_);
    if (st.st_dev != parent.device || st.st_ino != parent.inode) {
      return DataError(Fault::kUnsafePath, "a directory was moved while its tree was removed", path_);
    }
  }
  bool directory = true;
  LS_ASSIGN(const bool gone, Unlink(done.name, directory));
  if (gone) return {};
  if (++rounds_ > kMaxRounds) {
    errno = ENOTEMPTY;
    return SysError("rmdir", path_, done.name);
  }
  parent.directories.push_back(done.name);
  return {};
}

// Removes the files of the current directory and notes its directories.
Result<void> Remover::ReadLevel() {
  Level& level = levels_.back();
  level.read = true;
  if (lseek(level.fd.get(), 0, SEEK_SET) < 0) return SysError("lseek", path_);
  sys::DirectoryReader reader(level.fd.get(), kNamesBytes);
  sys::DirectoryEntry entry;
  for (;;) {
    if (cancel_.cancelled()) return Cancelled();
    LS_ASSIGN(const bool more, reader.Next(entry));
    if (!more) return {};
    std::string name(entry.name);
    bool directory = entry.type == DT_DIR;
    if (!directory) LS_TRY(Unlink(name, directory));
    if (directory) level.directories.push_back(std::move(name));
  }
}

Result<void> Remover::Run(dev_t device) {
  device_ = device;
  for (;;) {
    if (cancel_.cancelled()) return Cancelled();
    Level& level = levels_.back();
    if (!level.read) {
      LS_TRY(ReadLevel());
    } else if (!level.directories.empty()) {
      const std::string name = std::move(level.directories.back());
      level.directories.pop_back();
      LS_TRY(Descend(name));
    } else if (levels_.size() > 1) {
      LS_TRY(Ascend());
    } else {
      return {};
    }
  }
}

}  // namespace

Result<void> RemoveTree(const std::string& path, const CancelToken& cancel) {
  Result<sys::ParentPath> parent = sys::OpenParent(path);
  if (!parent) {
    if (parent.error().err == ENOENT || parent.error().err == ENOTDIR) return {};
    return parent.error();
  }
  return RemoveTreeAt(parent->directory.get(), parent->name, path, cancel);
}

Result<void> RemoveTreeAt(int directory, const std::string& name, const std::string& path, const CancelToken& cancel) {
  struct stat above {};
  struct stat st {};
  if (fstat(directory, &above) != 0) return SysError("fstat", path);
  if (fstatat(directory, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return {};
    return SysError("fstatat", path);
  }
  if (!S_ISDIR(st.st_mode)) {
    if (unlinkat(directory, name.c_str(), 0) != 0 && errno != ENOENT) return SysError("unlink", path);
    return {};
  }
  if (st.st_dev != above.st_dev) {
    errno = EBUSY;  // a mount point
    return SysError("rmdir", path);
  }
  for (int round = 0;; round++) {
    LS_ASSIGN(UniqueFd top, sys::OpenAt(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    Remover remover(std::move(top), path, cancel);
    LS_TRY(remover.Run(st.st_dev));
    if (unlinkat(directory, name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) return {};
    const int err = errno;
    const bool again = err == ENOTEMPTY || err == EEXIST || (err == EPERM && ClearFlags(directory, name));
    errno = err;
    if (!again || round == kMaxRounds) return SysError("rmdir", path);
  }
}

}  // namespace layerstore::tree
