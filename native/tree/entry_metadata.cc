#include "tree/entry_metadata.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "sys/open.h"
#include "tar/header.h"
#include "tree/xattr_policy.h"

namespace layerstore::tree {
namespace {

constexpr int64_t kMaxId = std::numeric_limits<uint32_t>::max();
constexpr int64_t kMinId = std::numeric_limits<int32_t>::min();
// JavaScript has no greater whole numbers, and no file system holds such times or sizes.
constexpr int64_t kMaxNumber = (int64_t{1} << 53) - 1;

}  // namespace

Creator Creator::Self() { return {geteuid(), getegid()}; }

EntryMetadata EntryMetadata::Of(const tar::Entry& entry, Privilege privilege) {
  EntryMetadata metadata;
  metadata.privilege = privilege;
  metadata.uid = static_cast<uid_t>(entry.uid);
  metadata.gid = static_cast<gid_t>(entry.gid);
  metadata.mode = static_cast<mode_t>(entry.mode) & 07777;
  metadata.times[1].tv_sec = std::clamp(entry.mtime_seconds, -kMaxNumber, kMaxNumber);
  metadata.times[1].tv_nsec = static_cast<long>(entry.mtime_nanoseconds);
  metadata.times[0] = metadata.times[1];
  if (privilege == Privilege::kNone) {
    metadata.uid = kNoId;
    metadata.gid = kNoId;
    const mode_t bits = BitsOfMaker(entry.type == tar::Type::kDirectory, privilege);
    metadata.mode = (metadata.mode & ~bits) | (bits & 0700);
  }
  return metadata;
}

Result<void> CheckNumbers(const tar::Entry& entry) {
  const auto fits = [](int64_t id) { return id >= kMinId && id <= kMaxId; };
  if (!fits(entry.uid) || !fits(entry.gid)) {
    return DataError(Fault::kBadTar, "a uid or gid of more than 32 bits", entry.name);
  }
  if (entry.size > static_cast<uint64_t>(kMaxNumber) && !tar::IsHeaderOnly(entry.type)) {
    return DataError(Fault::kBadTar, "a size of 2^53 bytes or more", entry.name);
  }
  return {};
}

bool HoldsTime(const tar::Entry& entry, const struct timespec& found) {
  constexpr int64_t kLast = std::numeric_limits<int32_t>::max();
  constexpr int64_t kFirst = std::numeric_limits<int32_t>::min();
  const int64_t wanted = entry.mtime_seconds;
  if (wanted == found.tv_sec && static_cast<long>(entry.mtime_nanoseconds) == found.tv_nsec) return true;
  return wanted > 0 ? found.tv_sec < wanted && found.tv_sec >= kLast : found.tv_sec > wanted && found.tv_sec <= kFirst;
}

Result<void> ApplyToFd(int fd, const tar::Entry& entry, const EntryMetadata& metadata, const Creator& creator,
                       const ApplyFlags& flags, const std::string& path, uint64_t& ignored_xattrs) {
  const bool owner = flags.inherits || !metadata.OwnedBy(creator.uid, creator.gid);
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
    if (!IsKeptXattr(name, flags.directory ? S_IFDIR : S_IFREG, metadata.privilege)) {
      ignored_xattrs++;
    } else if (flags.directory && name == kDefaultAcl) {
      continue;
    } else if (fsetxattr(fd, name.c_str(), value.data(), value.size(), 0) != 0) {
      // A file system that has no such attributes: Docker leaves them out too.
      if (errno != EOPNOTSUPP) return SysError("fsetxattr", path, name);
      ignored_xattrs++;
    }
  }
  if (!flags.directory && futimens(fd, metadata.times) != 0) return SysError("futimens", path);
  return {};
}

Result<void> ApplyToName(int parent, const std::string& name, const tar::Entry& entry, const EntryMetadata& metadata,
                         const Creator& creator, bool inherits, const std::string& path, uint64_t& ignored_xattrs) {
  const bool owner = inherits || !metadata.OwnedBy(creator.uid, creator.gid);
  if (owner && fchownat(parent, name.c_str(), metadata.uid, metadata.gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return SysError("fchownat", path);
  }
  if (entry.type != tar::Type::kSymlink && (inherits || (owner && (metadata.mode & 06000) != 0))) {
    // Made a moment ago by this thread and no link; the descriptor makes sure of it.
    UniqueFd file(openat(parent, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!file.valid()) return SysError("openat", path);
    struct stat info;
    if (fstat(file.get(), &info) != 0) return SysError("fstat", path);
    if (!S_ISLNK(info.st_mode) && chmod(sys::ProcFdPath(file.get()).c_str(), metadata.mode) != 0)
      return SysError("chmod", path);
  }
  if (!entry.xattrs.empty()) {
    const std::string link = sys::ProcFdPath(parent) + "/" + name;
    for (const auto& [key, value] : entry.xattrs) {
      if (!IsKeptXattr(key, entry.type == tar::Type::kSymlink ? S_IFLNK : S_IFIFO, metadata.privilege)) {
        ignored_xattrs++;
      } else if (lsetxattr(link.c_str(), key.c_str(), value.data(), value.size(), 0) != 0) {
        if (errno != EOPNOTSUPP) return SysError("lsetxattr", path, key);
        ignored_xattrs++;
      }
    }
  }
  if (utimensat(parent, name.c_str(), metadata.times, AT_SYMLINK_NOFOLLOW) != 0) return SysError("utimensat", path);
  return {};
}

}  // namespace layerstore::tree
