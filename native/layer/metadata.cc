#include "layer/metadata.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "layer/xattr_policy.h"
#include "sys/open.h"

namespace layerstore {
namespace {

// user.* is not for links and special files, whatever the archive says, and some file systems have no such xattrs at
// all: Docker leaves those out too.
bool Ignorable(int err, const std::string& name, bool plain) {
  return err == EOPNOTSUPP || (err == EPERM && !plain && name.starts_with("user."));
}

}  // namespace

Creator Creator::Self() { return {geteuid(), getegid()}; }

EntryMetadata EntryMetadata::Of(const TarEntry& entry) {
  EntryMetadata metadata;
  metadata.uid = static_cast<uid_t>(entry.uid);
  metadata.gid = static_cast<gid_t>(entry.gid);
  metadata.mode = static_cast<mode_t>(entry.mode) & 07777;
  metadata.times[1].tv_sec = entry.mtime_seconds;
  metadata.times[1].tv_nsec = static_cast<long>(entry.mtime_nanoseconds);
  metadata.times[0] = metadata.times[1];
  return metadata;
}

Result<void> ApplyToFd(int fd, const TarEntry& entry, const EntryMetadata& metadata, const Creator& creator,
                       const ApplyFlags& flags, const std::string& path, uint64_t& ignored_xattrs) {
  const bool owner = flags.inherits || metadata.uid != creator.uid || metadata.gid != creator.gid;
  if (owner && fchown(fd, metadata.uid, metadata.gid) != 0) return SysError("fchown", path);
  if (flags.inherits) {
    // Nothing to remove is the usual case.
    (void)fremovexattr(fd, kAccessAcl.data());
    if (flags.directory) (void)fremovexattr(fd, kDefaultAcl.data());
  }
  // chown takes setuid and setgid away, so the mode comes after it.
  const bool special = (metadata.mode & 06000) != 0;
  if ((flags.inherits || special || metadata.mode != flags.made_mode) && fchmod(fd, metadata.mode) != 0) {
    return SysError("fchmod", path);
  }
  for (const auto& [name, value] : entry.xattrs) {
    if (IsOverlayXattr(name)) {
      ignored_xattrs++;
    } else if (flags.directory && name == kDefaultAcl) {
      continue;
    } else if (fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) != 0) {
      if (!Ignorable(errno, name, true)) return SysError("fsetxattr", path, name);
      ignored_xattrs++;
    }
  }
  if (!flags.directory && futimens(fd, metadata.times) != 0) return SysError("futimens", path);
  return {};
}

Result<void> ApplyToName(int parent, const std::string& name, const TarEntry& entry, const EntryMetadata& metadata,
                         const Creator& creator, bool inherits, const std::string& path, uint64_t& ignored_xattrs) {
  const bool owner = inherits || metadata.uid != creator.uid || metadata.gid != creator.gid;
  if (owner && fchownat(parent, name.c_str(), metadata.uid, metadata.gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return SysError("fchownat", path);
  }
  if (entry.type != TarType::kSymlink && (inherits || (owner && (metadata.mode & 06000) != 0))) {
    // Made a moment ago by this thread and no link; the descriptor makes sure of it.
    UniqueFd file(openat(parent, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!file.valid()) return SysError("openat", path);
    struct stat info;
    if (fstat(file.get(), &info) != 0) return SysError("fstat", path);
    if (!S_ISLNK(info.st_mode) && chmod(ProcFdPath(file.get()).c_str(), metadata.mode) != 0)
      return SysError("chmod", path);
  }
  if (!entry.xattrs.empty()) {
    const std::string link = ProcFdPath(parent) + "/" + name;
    for (const auto& [key, value] : entry.xattrs) {
      if (IsOverlayXattr(key)) {
        ignored_xattrs++;
      } else if (lsetxattr(link.c_str(), key.c_str(), value.data(), value.size(), 0) != 0) {
        if (!Ignorable(errno, key, false)) return SysError("lsetxattr", path, key);
        ignored_xattrs++;
      }
    }
  }
  if (utimensat(parent, name.c_str(), metadata.times, AT_SYMLINK_NOFOLLOW) != 0) return SysError("utimensat", path);
  return {};
}

}  // namespace layerstore
