// The Applier's hard links and whiteouts, and how it clears the way for an entry that replaces another.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <vector>

#include "sys/directory.h"
#include "unpack/applier.h"

namespace layerstore::unpack {
namespace {

constexpr mode_t kNoMode = 0;

}  // namespace

// Moves away or removes what has `name`.
Result<void> Applier::ClearWay(const Parent& parent, const std::string& name) {
  struct stat info;
  if (fstatat(parent.fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return SysError("fstatat", path_);
  if (!IsWhiteoutDevice(info)) return Hide(parent, name, info);
  if (unlinkat(parent.fd, name.c_str(), 0) != 0) return SysError("unlinkat", path_);
  return {};
}

Result<void> Applier::Hide(const Parent& parent, const std::string& name, const struct stat& info) {
  LS_TRY(writer_.Drain());
  if (auto taken = replaced_.Take(parent.fd, name); !taken.ok()) {
    // A lower layer's directory on a mounted overlay cannot be renamed, and a file of it is no loss to the record.
    if (taken.error().err != EXDEV || Ours(info) || S_ISDIR(info.st_mode)) {
      taken.error().path = path_;
      return taken.error();
    }
    if (unlinkat(parent.fd, name.c_str(), 0) != 0) return SysError("unlinkat", path_);
  }
  parents_.Clear();
  return {};
}

Result<bool> Applier::MakeHardLink(const tar::Entry& entry, const EntryPath& path) {
  // Its header is held against what the file has.
  LS_TRY(writer_.Drain());
  LS_ASSIGN(const EntryPath target, ParseLinkTarget(entry.link_name, request_.limits));
  const auto missing = [&] { return DataError(Fault::kBadTar, "a hard link to what is not in the layer", entry.name); };
  if (target.path.empty()) return DataError(Fault::kBadTar, "a hard link to a directory", entry.name);
  LS_ASSIGN(Parent parent, FindParent(path.parent()));
  // The cache may drop the first descriptor while it looks for the second.
  const UniqueFd into(openat(parent.fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!into.valid()) return SysError("openat", path_);
  const auto from = parents_.Find(target.parent());
  if (!from.ok()) return IsNoDirectory(from.error()) ? missing() : from.error();
  const std::string name(path.base());
  const std::string target_name(PathBase(target.path));
  struct stat info;
  if (fstatat(from->fd, target_name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? missing() : SysError("fstatat", target.path);
  }
  if (S_ISDIR(info.st_mode)) return DataError(Fault::kBadTar, "a hard link to a directory", entry.name);
  if (IsWhiteoutDevice(info) || !Ours(info)) return missing();
  if (linkat(from->fd, target_name.c_str(), into.get(), name.c_str(), 0) != 0) {
    if (errno != EEXIST) return SysError("linkat", path_, target.path);
    struct stat there;
    if (fstatat(into.get(), name.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0) return SysError("fstatat", path_);
    if (there.st_ino == info.st_ino && there.st_dev == info.st_dev) return false;
    parent.fd = into.get();
    LS_TRY(ClearWay(parent, name));
    // What was replaced may have been on the way to the target: a link, or a directory with the target in it.
    const auto again = parents_.Find(target.parent());
    if (!again.ok()) return IsNoDirectory(again.error()) ? missing() : again.error();
    if (linkat(again->fd, target_name.c_str(), into.get(), name.c_str(), 0) != 0) {
      return errno == ENOENT ? missing() : SysError("linkat", path_, target.path);
    }
  }
  parent.fd = into.get();
  return AlignLink(entry, parent, name, info);
}

// As in Docker the link's header speaks of the file too; most say what the file has already.
Result<bool> Applier::AlignLink(const tar::Entry& entry, const Parent& parent, const std::string& name,
                                const struct stat& info) {
  const tree::EntryMetadata metadata = tree::EntryMetadata::Of(entry, request_.privilege);
  const bool same = metadata.OwnedBy(info.st_uid, info.st_gid) && entry.xattrs.empty() &&
                    (S_ISLNK(info.st_mode) || (info.st_mode & 07777) == metadata.mode) &&
                    info.st_mtim.tv_sec == metadata.times[1].tv_sec &&
                    info.st_mtim.tv_nsec == metadata.times[1].tv_nsec;
  if (same) return entry.size == 0;
  if (S_ISREG(info.st_mode)) {
    const UniqueFd fd(openat(parent.fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return SysError("openat", path_);
    // chown would take file capabilities away, so it is called only where the owner changes.
    const tree::Creator owner{info.st_uid, info.st_gid};
    const bool chowned = !metadata.OwnedBy(info.st_uid, info.st_gid);
    const mode_t now = chowned && (metadata.mode & 06000) != 0 ? kNoMode : info.st_mode & 07777;
    const tree::ApplyFlags flags{now, false, false};
    LS_TRY(tree::ApplyToFd(fd.get(), entry, metadata, owner, flags, path_, ignored_xattrs_));
    return entry.size == 0;
  }
  tar::Entry aligned = entry;
  aligned.type = S_ISLNK(info.st_mode) ? tar::Type::kSymlink : tar::Type::kFifo;
  LS_TRY(tree::ApplyToName(parent.fd, name, aligned, metadata, creator_, true, path_, ignored_xattrs_));
  return entry.size == 0;
}

Result<bool> Applier::MakeWhiteout(const tar::Entry& entry, const EntryPath& path) {
  if (keeps_made_) {
    LS_ASSIGN(const Parent parent, FindParent(path.parent()));
    const std::string name(path.base());
    struct stat info;
    if (fstatat(parent.fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno != ENOENT) return SysError("fstatat", path_);
      return false;
    }
    LS_TRY(Hide(parent, name, info));
    return entry.size == 0;
  }
  LS_ASSIGN(Parent parent, FindParent(path.parent()));
  const std::string name(path.base());
  struct stat info;
  if (fstatat(parent.fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
    if (IsWhiteoutDevice(info)) return false;
    LS_TRY(Hide(parent, name, info));
    LS_ASSIGN(parent, FindParent(path.parent()));
  } else if (errno != ENOENT) {
    return SysError("fstatat", path_);
  }
  if (mknodat(parent.fd, name.c_str(), S_IFCHR, 0) != 0) return SysError("mknodat", path_);
  const tree::EntryMetadata metadata = tree::EntryMetadata::Of(entry, request_.privilege);
  // A setgid directory gave it its own group.
  const bool owner = parent.setgid || !metadata.OwnedBy(creator_.uid, creator_.gid);
  if (owner && fchownat(parent.fd, name.c_str(), metadata.uid, metadata.gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return SysError("fchownat", path_);
  }
  return entry.size == 0;
}

Result<void> Applier::SetOpaque(int parent, const std::string& name, bool& was) {
  if (keeps_made_) return {};
  const UniqueFd fd(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return SysError("openat", path_);
  const char* key =
      request_.whiteouts == tree::Whiteouts::kOverlayUser ? "user.overlay.opaque" : "trusted.overlay.opaque";
  was = false;
  if (fsetxattr(fd.get(), key, "y", 1, XATTR_CREATE) == 0) return {};
  was = errno == EEXIST;
  return was ? Result<void>() : SysError("fsetxattr", path_, key);
}

Result<bool> Applier::MakeOpaque(const EntryPath& path) {
  LS_ASSIGN(const Parent directory, FindParent(path.parent()));
  if (keeps_made_) {
    LS_ASSIGN(const bool first, ClearLower(path.parent()));
    return first && entry_->size == 0;
  }
  bool was = false;
  LS_TRY(SetOpaque(directory.fd, ".", was));
  return !was && entry_->size == 0;
}

// An opaque directory in a tree that holds the parent's files: what this archive did not make goes. A directory of the
// parent stays where it holds something that was made, or lay on the way to an entry: in a tree of its own the layer
// has it too. True: the first time for this directory.
Result<bool> Applier::ClearLower(std::string_view path) {
  struct Level {
    UniqueFd fd;
    std::unique_ptr<sys::DirectoryReader> reader;
    std::string name;
  };
  LS_ASSIGN(const Parent top, FindParent(path));
  std::vector<Level> levels;
  const auto enter = [&](int at, const std::string& name) -> Result<void> {
    UniqueFd fd(openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return SysError("openat", path_);
    auto reader = std::make_unique<sys::DirectoryReader>(fd.get());
    levels.push_back({std::move(fd), std::move(reader), name});
    return {};
  };
  LS_TRY(enter(top.fd, "."));
  struct stat itself;
  if (fstat(levels.back().fd.get(), &itself) != 0) return SysError("fstat", path_);
  const bool first = cleared_.size() < kMaxNoted && cleared_.insert(itself.st_ino);
  if (!pure_.insert(itself.st_ino)) return first;  // nothing of the parent can be in it
  while (!levels.empty()) {
    const int at = levels.back().fd.get();
    sys::DirectoryEntry entry;
    LS_ASSIGN(const bool more, levels.back().reader->Next(entry));
    if (!more) {
      const std::string name = std::move(levels.back().name);
      levels.pop_back();
      if (levels.empty()) break;
      struct stat info;
      if (fstatat(levels.back().fd.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
        return SysError("fstatat", path_);
      if (OursOrUsed(info)) continue;
      if (unlinkat(levels.back().fd.get(), name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOTEMPTY && errno != EEXIST) {
        return SysError("unlinkat", path_);
      }
      continue;
    }
    const std::string name(entry.name);
    struct stat info;
    if (fstatat(at, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return SysError("fstatat", path_);
    if (S_ISDIR(info.st_mode)) {
      if (pure_.insert(info.st_ino)) {
        LS_TRY(enter(at, name));
      } else if (!OursOrUsed(info) && unlinkat(at, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOTEMPTY &&
                 errno != EEXIST) {
        return SysError("unlinkat", path_);
      }
    } else if (!Ours(info) && unlinkat(at, name.c_str(), 0) != 0) {
      return SysError("unlinkat", path_);
    }
  }
  parents_.Clear();
  return first;
}

}  // namespace layerstore::unpack
