#include "sys/batch.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <span>

#include "sys/fd_io.h"
#include "sys/open.h"

namespace layerstore::sys {
namespace {

// RENAME_* of <linux/fs.h>.
constexpr unsigned kRenameNoReplace = 1;
constexpr unsigned kRenameExchange = 2;

struct Made {
  const std::string* path;
  bool directory;
};

constexpr uint32_t kPermissions = 07777;

Result<void> SetOwner(const BatchOp& op) {
  if (!op.uid && !op.gid) return {};
  const uid_t uid = op.uid.value_or(static_cast<uid_t>(-1));
  const gid_t gid = op.gid.value_or(static_cast<gid_t>(-1));
  if (lchown(op.path.c_str(), uid, gid) != 0) return SysError("lchown", op.path);
  return {};
}

Result<void> Mkdir(const BatchOp& op, std::vector<Made>& made) {
  if (mkdir(op.path.c_str(), op.mode & kPermissions) != 0) {
    if (errno != EEXIST || !op.exist_ok) return SysError("mkdir", op.path);
    struct stat status {};
    if (stat(op.path.c_str(), &status) != 0) return SysError("stat", op.path);
    if (S_ISDIR(status.st_mode)) return {};  // left as it is, its mode too
    errno = EEXIST;
    return SysError("mkdir", op.path);
  }
  made.push_back({&op.path, true});
  LS_TRY(SetOwner(op));
  // After the owner, whose change may clear bits.
  return SetNewMode(op.path, op.mode & kPermissions);
}

Result<void> Write(const BatchOp& op, std::vector<Made>& made) {
  LS_ASSIGN(const UniqueFd fd,
            OpenAt(AT_FDCWD, op.path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, op.mode & kPermissions));
  made.push_back({&op.path, false});
  Result<void> written =
      WriteFully(fd.get(), std::span(reinterpret_cast<const uint8_t*>(op.data.data()), op.data.size()));
  if (!written) {
    written.error().path = op.path;
    return written;
  }
  if ((op.uid || op.gid) &&
      fchown(fd.get(), op.uid.value_or(static_cast<uid_t>(-1)), op.gid.value_or(static_cast<gid_t>(-1))) != 0) {
    return SysError("fchown", op.path);
  }
  struct stat status {};
  if (fstat(fd.get(), &status) != 0) return SysError("fstat", op.path);
  // As in SetNewMode.
  if ((status.st_mode & kPermissions) != (op.mode & kPermissions) && fchmod(fd.get(), op.mode & kPermissions) != 0) {
    return SysError("fchmod", op.path);
  }
  if (op.sync && fsync(fd.get()) != 0) return SysError("fsync", op.path);
  return {};
}

Result<void> Mknod(const BatchOp& op, std::vector<Made>& made) {
  if (mknod(op.path.c_str(), op.mode, makedev(op.major, op.minor)) != 0) return SysError("mknod", op.path);
  made.push_back({&op.path, false});
  // A whiteout has no mode bits that the umask could take.
  if ((op.mode & kPermissions) != 0 && chmod(op.path.c_str(), op.mode & kPermissions) != 0) {
    return SysError("chmod", op.path);
  }
  return {};
}

Result<void> Fsync(const BatchOp& op) {
  LS_ASSIGN(const UniqueFd fd, OpenAt(AT_FDCWD, op.path, O_RDONLY));
  if (fsync(fd.get()) != 0) return SysError("fsync", op.path);
  return {};
}

Result<void> RunOne(const BatchOp& op, std::vector<Made>& made) {
  const char* path = op.path.c_str();
  switch (op.kind) {
    case BatchKind::kMkdir:
      return Mkdir(op, made);
    case BatchKind::kWrite:
      return Write(op, made);
    case BatchKind::kSymlink:
      if (symlink(op.dest.c_str(), path) != 0) return SysError("symlink", op.dest, op.path);
      made.push_back({&op.path, false});
      return {};
    case BatchKind::kRename:
      return RenameWithFlags(op.path, op.dest, op.no_replace ? kRenameNoReplace : 0);
    case BatchKind::kExchange:
      return RenameWithFlags(op.path, op.dest, kRenameExchange);
    case BatchKind::kUnlink:
      if (unlink(path) != 0 && (errno != ENOENT || !op.missing_ok)) return SysError("unlink", op.path);
      return {};
    case BatchKind::kRmdir:
      if (rmdir(path) != 0 && (errno != ENOENT || !op.missing_ok)) return SysError("rmdir", op.path);
      return {};
    case BatchKind::kChmod:
      if (chmod(path, op.mode & kPermissions) != 0) return SysError("chmod", op.path);
      return {};
    case BatchKind::kChown:
      return SetOwner(op);
    case BatchKind::kSetxattr:
      if (lsetxattr(path, op.name.c_str(), op.data.data(), op.data.size(), 0) != 0)
        return SysError("lsetxattr", op.path);
      return {};
    case BatchKind::kRemovexattr:
      if (lremovexattr(path, op.name.c_str()) != 0 && (errno != ENODATA || !op.missing_ok)) {
        return SysError("lremovexattr", op.path);
      }
      return {};
    case BatchKind::kMknod:
      return Mknod(op, made);
    case BatchKind::kFsync:
      return Fsync(op);
  }
  return {};
}

}  // namespace

Result<void> RunBatch(const std::vector<BatchOp>& ops) {
  std::vector<Made> made;
  for (const BatchOp& op : ops) {
    Result<void> done = RunOne(op, made);
    if (done.ok()) continue;
    // What cannot be taken back (a directory that somebody filled meanwhile) stays: the first error is the one to tell.
    for (auto step = made.rbegin(); step != made.rend(); ++step) {
      if (step->directory) {
        rmdir(step->path->c_str());
      } else {
        unlink(step->path->c_str());
      }
    }
    return done;
  }
  return {};
}

}  // namespace layerstore::sys
