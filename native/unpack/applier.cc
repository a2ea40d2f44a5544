#include "unpack/applier.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "sys/open.h"
#include "tree/xattr_policy.h"

namespace layerstore::unpack {
namespace {

constexpr mode_t kImpliedMode = 0755;
// What mkdir and open take over from a mode; the rest needs a chmod.
constexpr mode_t kCreateBits = 0777;
// The kernel's dev_t.
constexpr int64_t kMaxMajor = (1 << 12) - 1;
constexpr int64_t kMaxMinor = (1 << 20) - 1;

}  // namespace

Applier::Applier(const IngestRequest& request, UniqueFd root)
    : request_(request),
      root_(std::move(root)),
      parents_(root_.get(), request.force_component_walk, Owns(request)),
      replaced_(request.directory, root_.get(), !request.tar_split_path.empty()),
      ends_(root_.get()),
      writer_(creator_),
      keeps_made_(request.whiteouts == tree::Whiteouts::kApply) {}

ParentCache::Owns Applier::Owns(const IngestRequest& request) {
  if (request.whiteouts != tree::Whiteouts::kApply) return {};
  return [this](const struct stat& info) { return OursOrUsed(info); };
}

Result<std::unique_ptr<Applier>> Applier::Open(const IngestRequest& request) {
  LS_ASSIGN(UniqueFd root, sys::OpenPath(request.directory, O_RDONLY | O_DIRECTORY));
  // A default ACL that the directory inherited from the host would reach everything made in it. None is the usual case.
  if (request.whiteouts != tree::Whiteouts::kApply) (void)fremovexattr(root.get(), tree::kDefaultAcl.data());
  return std::unique_ptr<Applier>(new Applier(request, std::move(root)));
}

bool Applier::IsWhiteoutDevice(const struct stat& info) const {
  return !keeps_made_ && S_ISCHR(info.st_mode) && info.st_rdev == 0;
}

void Applier::Made(const struct stat& info) {
  if (keeps_made_) made_.insert(info.st_ino);
}

Result<void> Applier::NoteMade(int parent, const std::string& name) {
  if (!keeps_made_) return {};
  struct stat info;
  if (fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return SysError("fstatat", path_);
  Made(info);
  return {};
}

Result<void> Applier::NoteImplied(int parent, const std::string& name) {
  if (!keeps_made_ && implied_.size() >= kMaxNoted) return {};
  struct stat info;
  if (fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return SysError("fstatat", path_);
  Made(info);
  if (keeps_made_) pure_.insert(info.st_ino);
  if (implied_.size() < kMaxNoted) implied_.insert(info.st_ino);
  return {};
}

bool Applier::IsNoDirectory(const Error& error) {
  return error.err == ENOTDIR || error.err == ENOENT || error.err == ELOOP;
}

// A parent that is no directory, or a link into nothing: the archive is wrong, not the system.
Error Applier::ParentError(Error error, std::string_view path) const {
  if (IsNoDirectory(error)) {
    return DataError(Fault::kBadTar, "a parent is not a directory", std::string(path));
  }
  return error;
}

Result<Parent> Applier::FindParent(std::string_view path) {
  auto found = parents_.Find(path);
  if (!found.ok() && (found.error().err == ENOENT || found.error().err == ENOTDIR)) {
    LS_TRY(MakeImplied(path));
    found = parents_.Find(path);
  }
  if (found.ok()) {
    aliased_ = found->aliased;
    // A parent's tree may have default ACLs anywhere: nothing is skipped there.
    if (!keeps_made_) return *found;
    LS_TRY(NoteUsed(path, found->inode));
    LS_ASSIGN(Parent parent, parents_.Find(path));
    parent.setgid = true;
    return parent;
  }
  return ParentError(found.error(), path_);
}

// Up to the first directory that is known: those above it are known too.
Result<void> Applier::NoteUsed(std::string_view path, uint64_t inode) {
  while (used_.insert(inode) && !path.empty()) {
    path = PathParent(path);
    LS_ASSIGN(const Parent above, parents_.Find(path));
    inode = above.inode;
  }
  return {};
}

// Makes what is missing on the way to `path`. The first missing directory is searched for by halving, and what lies
// below it is made from descriptor to descriptor: the time is that of the path's length, not of its square.
Result<void> Applier::MakeImplied(std::string_view path) {
  std::vector<size_t> ends;
  for (size_t end = path.find('/'); end != std::string_view::npos; end = path.find('/', end + 1)) ends.push_back(end);
  ends.push_back(path.size());
  const auto prefix = [&](size_t count) { return count == 0 ? std::string_view() : path.substr(0, ends[count - 1]); };
  size_t there = 0;
  size_t missing = ends.size();
  while (there + 1 < missing) {
    const size_t middle = there + (missing - there) / 2;
    (parents_.Find(prefix(middle)).ok() ? there : missing) = middle;
  }
  const auto found = parents_.Find(prefix(missing));
  if (found.ok()) return {};
  if (found.error().err != ENOENT && found.error().err != ENOTDIR) return ParentError(found.error(), path_);
  auto parent = parents_.Find(prefix(there));
  if (!parent.ok()) return ParentError(parent.error(), path_);
  UniqueFd at(openat(parent->fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at.valid()) return SysError("openat", path_);
  for (size_t count = missing; count <= ends.size(); count++) {
    const std::string name(PathBase(prefix(count)));
    bool opaque = false;
    struct stat info;
    if (count == missing && fstatat(at.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
      if (IsWhiteoutDevice(info)) {
        // Earlier in this archive: the directory is a new one.
        if (unlinkat(at.get(), name.c_str(), 0) != 0) return SysError("unlinkat", path_);
        opaque = true;
      } else if (!Ours(info) && !S_ISDIR(info.st_mode)) {
        // The parent layer's file or link: the directory hides it.
        LS_TRY(Hide({at.get()}, name, info));
      } else {
        return ParentError(found.error(), path_);
      }
    }
    if (mkdirat(at.get(), name.c_str(), kImpliedMode) != 0) return SysError("mkdirat", path_);
    implied_count_++;
    LS_TRY(NoteImplied(at.get(), name));
    bool was = false;
    if (opaque) LS_TRY(SetOpaque(at.get(), name, was));
    UniqueFd next(openat(at.get(), name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) return SysError("openat", path_);
    at = std::move(next);
  }
  return {};
}

Result<bool> Applier::Begin(const tar::Entry& entry) {
  file_.reset();
  behind_ = false;
  pieces_.clear();
  entry_ = &entry;
  position_ = 0;
  region_ = 0;
  LS_ASSIGN(EntryPath path, ParseEntryName(entry.name, request_.limits));
  path_ = path.path;
  aliased_ = false;
  LS_TRY(tree::CheckNumbers(entry));
  LS_ASSIGN(const bool named, Make(entry, path));
  // Through a link the name may mean another file later on.
  return named && !aliased_;
}

Result<bool> Applier::Make(const tar::Entry& entry, const EntryPath& path) {
  switch (path.kind) {
    case NameKind::kRoot:
      // As Docker: the root's own owner, mode and times are the store's business.
      if (entry.type == tar::Type::kDirectory) return false;
      return DataError(Fault::kUnsafePath, "an entry in the place of the layer's root", entry.name);
    case NameKind::kDropped:
      return false;
    case NameKind::kOpaque:
      return MakeOpaque(path);
    case NameKind::kWhiteout:
      return MakeWhiteout(entry, path);
    case NameKind::kFile:
      break;
  }
  if (!tree::EntryMetadata::Of(entry, request_.privilege).keeps_owner()) ignored_owners_++;
  switch (entry.type) {
    case tar::Type::kRegular:
    case tar::Type::kContiguous:
      return MakeFile(entry, path);
    case tar::Type::kDirectory:
      return MakeDirectory(entry, path);
    case tar::Type::kHardLink:
      return MakeHardLink(entry, path);
    case tar::Type::kSymlink:
    case tar::Type::kCharDevice:
    case tar::Type::kBlockDevice:
    case tar::Type::kFifo:
      return MakeNode(entry, path);
    default:
      return DataError(Fault::kBadTar, "unknown entry type " + std::to_string(static_cast<unsigned char>(entry.type)),
                       entry.name);
  }
}

Result<bool> Applier::MakeFile(const tar::Entry& entry, const EntryPath& path) {
  LS_ASSIGN(Parent parent, FindParent(path.parent()));
  const std::string name(path.base());
  const tree::EntryMetadata metadata = tree::EntryMetadata::Of(entry, request_.privilege);
  flags_ = {metadata.mode & kCreateBits, parent.setgid, false};
  const mode_t mode = flags_.made_mode;
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  int fd = openat(parent.fd, name.c_str(), kFlags, mode);
  if (fd < 0 && errno == EEXIST) {
    LS_TRY(ClearWay(parent, name));
    LS_ASSIGN(parent, FindParent(path.parent()));
    fd = openat(parent.fd, name.c_str(), kFlags, mode);
  }
  if (fd < 0) return SysError("openat", path_);
  file_ = UniqueFd(fd);
  if (keeps_made_) {
    struct stat info;
    if (fstat(fd, &info) != 0) return SysError("fstat", path_);
    Made(info);
  }
  size_ += entry.size;
  behind_ = long_ && entry.size > 0 && entry.size <= FileWriter::kMaxFile && !entry.sparse && entry.xattrs.empty() &&
            writer_.HasRoom();
  return !entry.sparse;
}

Result<void> Applier::WriteAt(std::span<const uint8_t> data, uint64_t offset) {
  while (!data.empty()) {
    const ssize_t count = entry_->sparse ? pwrite(file_.get(), data.data(), data.size(), static_cast<off_t>(offset))
                                         : write(file_.get(), data.data(), data.size());
    if (count < 0) {
      if (errno == EINTR) continue;
      return SysError("write", path_);
    }
    data = data.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

Result<void> Applier::Write(std::span<const uint8_t> data, const BlockQueue::Ref& block) {
  if (!file_.valid()) return {};
  if (behind_) {
    writer_.Keep(block);
    pieces_.push_back(data);
    return {};
  }
  if (!entry_->sparse) return WriteAt(data, 0);
  while (!data.empty() && region_ < entry_->regions.size()) {
    const tar::SparseRegion& region = entry_->regions[region_];
    const size_t count = static_cast<size_t>(std::min<uint64_t>(data.size(), region.length - position_));
    LS_TRY(WriteAt(data.first(count), region.offset + position_));
    data = data.subspan(count);
    position_ += count;
    if (position_ < region.length) continue;
    region_++;
    position_ = 0;
  }
  return {};
}

Result<void> Applier::End(const tar::Entry& entry) {
  if (!file_.valid()) return {};
  if (behind_) {
    return writer_.Add({std::move(file_), std::exchange(pieces_, {}),
                        tree::EntryMetadata::Of(entry, request_.privilege), flags_, path_});
  }
  if (entry.sparse && ftruncate(file_.get(), static_cast<off_t>(entry.size)) != 0) return SysError("ftruncate", path_);
  LS_TRY(tree::ApplyToFd(file_.get(), entry, tree::EntryMetadata::Of(entry, request_.privilege), creator_, flags_,
                         path_, ignored_xattrs_));
  file_.reset();
  return {};
}

Result<void> Applier::NextBlock() {
  long_ = true;
  return writer_.Flush();
}

Result<bool> Applier::MakeDirectory(const tar::Entry& entry, const EntryPath& path) {
  LS_ASSIGN(Parent parent, FindParent(path.parent()));
  const std::string name(path.base());
  tree::EntryMetadata metadata = tree::EntryMetadata::Of(entry, request_.privilege);
  DirectoryEnd end;
  end.path = path_;
  end.mtime = metadata.times[1];
  // Without privileges its owner could make nothing in it: the mode waits for the end.
  if (creator_.uid != 0 && (metadata.mode & 0700) != 0700) {
    end.mode = metadata.mode;
    metadata.mode |= 0700;
  }
  const mode_t made_mode = metadata.mode & kCreateBits;
  bool fresh = mkdirat(parent.fd, name.c_str(), made_mode) == 0;
  bool unnamed = fresh;
  bool opaque = false;
  if (!fresh) {
    if (errno != EEXIST) return SysError("mkdirat", path_);
    struct stat info;
    if (fstatat(parent.fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return SysError("fstatat", path_);
    if (!S_ISDIR(info.st_mode)) {
      // Whatever it was hid the directory that a layer below may have there.
      LS_TRY(ClearWay(parent, name));
      opaque = true;
      LS_ASSIGN(parent, FindParent(path.parent()));
      if (mkdirat(parent.fd, name.c_str(), made_mode) != 0) return SysError("mkdirat", path_);
      fresh = true;
      unnamed = true;
    } else {
      // Implied by an earlier entry, or the parent's: this is the first time that it is named.
      unnamed = implied_.erase(info.st_ino) > 0 || !Ours(info);
    }
  }
  const bool plain = fresh && !opaque && !keeps_made_ && !parent.setgid && entry.xattrs.empty() &&
                     metadata.mode == made_mode && metadata.uid == creator_.uid && metadata.gid == creator_.gid;
  if (!plain) {
    if (opaque) {
      bool was = false;
      LS_TRY(SetOpaque(parent.fd, name, was));
    }
    const UniqueFd fd(openat(parent.fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return SysError("openat", path_);
    tree::ApplyFlags flags{made_mode, parent.setgid || !fresh, true};
    LS_TRY(tree::ApplyToFd(fd.get(), entry, metadata, creator_, flags, path_, ignored_xattrs_));
    for (const auto& [key, value] : entry.xattrs) {
      if (key == tree::kDefaultAcl) end.default_acl = value;
    }
  }
  struct stat made;
  if (fstatat(parent.fd, name.c_str(), &made, AT_SYMLINK_NOFOLLOW) != 0) return SysError("fstatat", path_);
  Made(made);
  if (keeps_made_ && fresh) pure_.insert(made.st_ino);
  end.inode = made.st_ino;
  if (!fresh) parents_.Clear();  // its setgid bit may have changed
  LS_TRY(ends_.Add(end));
  return unnamed && entry.size == 0;
}

Result<bool> Applier::MakeNode(const tar::Entry& entry, const EntryPath& path) {
  const tree::EntryMetadata metadata = tree::EntryMetadata::Of(entry, request_.privilege);
  mode_t type = 0;
  dev_t device = 0;
  if (entry.type == tar::Type::kSymlink) {
    if (entry.link_name.size() > request_.limits.max_link_length) {
      return DataError(Fault::kLimit, "maxLinkLength", entry.name);
    }
    if (entry.link_name.empty()) return DataError(Fault::kBadTar, "a symbolic link without a target", entry.name);
  } else if (entry.type == tar::Type::kFifo) {
    type = S_IFIFO;
  } else {
    type = entry.type == tar::Type::kCharDevice ? S_IFCHR : S_IFBLK;
    if (entry.device_major < 0 || entry.device_major > kMaxMajor || entry.device_minor < 0 ||
        entry.device_minor > kMaxMinor) {
      return DataError(Fault::kBadTar, "a device number that the kernel does not have", entry.name);
    }
    device = makedev(static_cast<unsigned>(entry.device_major), static_cast<unsigned>(entry.device_minor));
    if (type == S_IFCHR && device == 0) {
      return DataError(Fault::kUnsafePath, "a 0:0 character device, which is a whiteout to overlayfs", entry.name);
    }
  }
  LS_ASSIGN(Parent parent, FindParent(path.parent()));
  const std::string name(path.base());
  const auto make = [&] {
    if (type == 0) return symlinkat(entry.link_name.c_str(), parent.fd, name.c_str());
    const int made = mknodat(parent.fd, name.c_str(), type | metadata.mode, device);
    if (made == 0 || errno != EPERM || type == S_IFIFO || metadata.privilege == tree::Privilege::kFull) return made;
    // An empty file stands in for the device: runtimes mount the machine's own on it.
    return mknodat(parent.fd, name.c_str(), S_IFREG | metadata.mode, 0);
  };
  const char* syscall = type == 0 ? "symlinkat" : "mknodat";
  if (make() != 0) {
    if (errno != EEXIST) return SysError(syscall, path_);
    LS_TRY(ClearWay(parent, name));
    LS_ASSIGN(parent, FindParent(path.parent()));
    if (make() != 0) return SysError(syscall, path_);
  }
  LS_TRY(NoteMade(parent.fd, name));
  if (type == 0) size_ += entry.link_name.size();
  LS_TRY(tree::ApplyToName(parent.fd, name, entry, metadata, creator_, parent.setgid, path_, ignored_xattrs_));
  return entry.size == 0;
}

Result<void> Applier::Finish(const CancelToken& cancel) {
  file_.reset();
  LS_TRY(writer_.Drain());
  return ends_.ForEach([&](const DirectoryEnd& end) -> Result<void> {
    if (cancel.cancelled()) return DataError(Fault::kCancelled, "");
    auto parent = parents_.Find(PathParent(end.path));
    const std::string name(PathBase(end.path));
    struct stat info;
    const struct timespec times[2] = {end.mtime, end.mtime};
    // Gone, or something else by now: a later entry's work.
    if (!parent.ok() || fstatat(parent->fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0 ||
        info.st_ino != end.inode || !S_ISDIR(info.st_mode))
      return {};
    if (end.default_acl.has_value() || end.mode.has_value()) {
      const UniqueFd fd(openat(parent->fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!fd.valid()) return SysError("openat", end.path);
      if (end.default_acl.has_value() &&
          fsetxattr(fd.get(), tree::kDefaultAcl.data(), end.default_acl->data(), end.default_acl->size(), 0) != 0) {
        if (errno != EOPNOTSUPP) return SysError("fsetxattr", end.path, std::string(tree::kDefaultAcl));
        ignored_xattrs_++;
      }
      if (futimens(fd.get(), times) != 0) return SysError("futimens", end.path);
      if (end.mode.has_value() && fchmod(fd.get(), *end.mode) != 0) return SysError("fchmod", end.path);
      return {};
    }
    if (utimensat(parent->fd, name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) return SysError("utimensat", end.path);
    return {};
  });
}

}  // namespace layerstore::unpack
