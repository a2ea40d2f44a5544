#include "layer/verify_entry.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>

#include "layer/files.h"
#include "layer/xattr_policy.h"
#include "tar/split_reader.h"

namespace layerstore {
namespace {

constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kMetaPrefix = ".wh..wh.";
constexpr std::string_view kOpaqueName = ".wh..wh..opq";

std::string_view Base(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string Octal(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "%04llo", static_cast<unsigned long long>(value));
  return text;
}

std::string Owner(int64_t uid, int64_t gid) { return std::to_string(uid) + ":" + std::to_string(gid); }

std::string Time(int64_t seconds, int64_t nanoseconds) {
  char text[40];
  std::snprintf(text, sizeof text, "%lld.%09lld", static_cast<long long>(seconds), static_cast<long long>(nanoseconds));
  return text;
}

mode_t TypeBits(TarType type) {
  switch (type) {
    case TarType::kDirectory:
      return S_IFDIR;
    case TarType::kSymlink:
      return S_IFLNK;
    case TarType::kCharDevice:
      return S_IFCHR;
    case TarType::kBlockDevice:
      return S_IFBLK;
    case TarType::kFifo:
      return S_IFIFO;
    default:
      return S_IFREG;
  }
}

// Printable in a report whatever the bytes are, and short.
std::string Show(const std::string& value) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(value.size(), 64); i++) {
    const auto byte = static_cast<uint8_t>(value[i]);
    text += kHex[byte >> 4];
    text += kHex[byte & 15];
  }
  return value.size() > 64 ? text + "…" : text;
}

}  // namespace

std::string DescribeType(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "directory";
    case S_IFREG:
      return "regular file";
    case S_IFLNK:
      return "symbolic link";
    case S_IFCHR:
      return "character device";
    case S_IFBLK:
      return "block device";
    case S_IFIFO:
      return "FIFO";
    default:
      return "socket";
  }
}

void EntryNames::Add(std::string_view name, bool recorded) {
  std::string clean;
  if (!CleanEntryName(name, clean)) return;
  const uint64_t hash = Hash(clean);
  if (!recorded) unsure_.insert(hash);
  if (!known_.insert(hash).second) unsure_.insert(hash);
  // What a whiteout names exists in the tree, as a device or removed.
  const std::string_view base = Base(clean);
  if (base.starts_with(kWhiteoutPrefix) && !base.starts_with(kMetaPrefix)) {
    std::string removed = clean;
    removed.erase(clean.size() - base.size(), kWhiteoutPrefix.size());
    if (!known_.insert(Hash(removed)).second) unsure_.insert(Hash(removed));
  }
  // Implied parents.
  for (size_t slash = clean.rfind('/'); slash != std::string::npos && slash > 0; slash = clean.rfind('/', slash - 1)) {
    clean.resize(slash);
    if (!implied_.insert(Hash(clean)).second) break;
  }
}

Result<void> EntryCheck::Whiteout(const SplitEntry& entry, const std::string& removed) {
  // The same archive may have made the name, before or after: then its entry is what counts.
  if (names_.Unsure(removed)) return {};
  SplitEntry target = entry;
  target.name = removed;
  Result<LayerFiles::Place> place = files_.Find(target);
  struct stat st {};
  const bool there = place.ok() && fstatat(place->directory, place->name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
  if (whiteouts_ == Whiteouts::kApply) {
    if (there) Add(removed, "whiteout", "nothing", DescribeType(st.st_mode));
    return {};
  }
  if (!there || !IsWhiteoutDevice(st))
    Add(removed, "whiteout", "a 0:0 device", there ? DescribeType(st.st_mode) : "nothing");
  if (there) inodes_.insert(st.st_ino);
  return {};
}

Result<void> EntryCheck::Opaque(const SplitEntry& entry) {
  if (whiteouts_ == Whiteouts::kApply) return {};
  // Through the marker's own name: its parent is the directory.
  Result<LayerFiles::Place> place = files_.Find(entry);
  std::string value;
  const char* xattr = whiteouts_ == Whiteouts::kOverlayUser ? "user.overlay.opaque" : "trusted.overlay.opaque";
  if (place) {
    LS_TRY(GetXattr(place->directory, {}, xattr, value));
  }
  if (value != "y") Add(entry.name, "opaque", "y", value.empty() ? "nothing" : value);
  return {};
}

Result<void> EntryCheck::Xattrs(const TarEntry& header, const LayerFiles::Place& place) {
  LS_ASSIGN(const std::vector<Xattr> found, ListXattrs(place.directory, place.name));
  for (const auto& [name, value] : header.xattrs) {
    if (IsOverlayXattr(name)) continue;
    const auto at =
        std::find_if(found.begin(), found.end(), [&name = name](const Xattr& xattr) { return xattr.name == name; });
    if (at == found.end()) {
      Add(header.name, "xattr " + name, Show(value), "nothing");
    } else if (at->value != value) {
      Add(header.name, "xattr " + name, Show(value), Show(at->value));
    }
  }
  for (const Xattr& xattr : found) {
    const bool wanted = std::any_of(header.xattrs.begin(), header.xattrs.end(),
                                    [&](const auto& pair) { return pair.first == xattr.name; });
    // The kernel labels files by itself where SELinux is on.
    if (!wanted && xattr.name != "security.selinux")
      Add(header.name, "xattr " + xattr.name, "nothing", Show(xattr.value));
  }
  return {};
}

Result<void> EntryCheck::HardLink(const TarEntry& header, const struct stat& st) {
  SplitEntry target;
  target.name = header.link_name;
  Result<LayerFiles::Place> place = files_.Find(target);
  struct stat other {};
  if (!place || fstatat(place->directory, place->name.c_str(), &other, AT_SYMLINK_NOFOLLOW) != 0) {
    Add(header.name, "hard link", header.link_name, "nothing");
  } else if ((other.st_ino != st.st_ino || other.st_dev != st.st_dev) && !names_.Unsure(header.link_name)) {
    Add(header.name, "hard link", header.link_name, "another file");
  }
  return {};
}

Result<void> EntryCheck::Attributes(const RecordTar::Item& item, const LayerFiles::Place& place,
                                    const struct stat& st) {
  const TarEntry& header = item.header;
  if (header.type == TarType::kHardLink) return HardLink(header, st);
  const mode_t type = TypeBits(header.type);
  if ((st.st_mode & S_IFMT) != type) {
    Add(header.name, "type", DescribeType(type), DescribeType(st.st_mode));
    return {};
  }
  if (type == S_IFREG && item.file.size == 0 && st.st_size != 0)
    Add(header.name, "size", "0", std::to_string(st.st_size));
  if (type != S_IFLNK && (static_cast<mode_t>(header.mode) & 07777) != (st.st_mode & 07777)) {
    Add(header.name, "mode", Octal(static_cast<uint64_t>(header.mode) & 07777), Octal(st.st_mode & 07777));
  }
  if (header.uid != st.st_uid || header.gid != st.st_gid)
    Add(header.name, "owner", Owner(header.uid, header.gid), Owner(st.st_uid, st.st_gid));
  if ((type == S_IFCHR || type == S_IFBLK) && (header.device_major != static_cast<int64_t>(major(st.st_rdev)) ||
                                               header.device_minor != static_cast<int64_t>(minor(st.st_rdev)))) {
    Add(header.name, "device", Owner(header.device_major, header.device_minor),
        Owner(major(st.st_rdev), minor(st.st_rdev)));
  }
  if (type == S_IFLNK) {
    char link[PATH_MAX];
    const ssize_t length = readlinkat(place.directory, place.name.c_str(), link, sizeof link);
    if (length < 0) return SysError("readlinkat", header.name);
    const std::string found(link, static_cast<size_t>(length));
    if (found != header.link_name) Add(header.name, "link target", header.link_name, found);
  }
  if (header.mtime_seconds != st.st_mtim.tv_sec || static_cast<long>(header.mtime_nanoseconds) != st.st_mtim.tv_nsec) {
    Add(header.name, "mtime", Time(header.mtime_seconds, header.mtime_nanoseconds),
        Time(st.st_mtim.tv_sec, st.st_mtim.tv_nsec), true);
  }
  return Xattrs(header, place);
}

Result<void> EntryCheck::Check(const RecordTar::Item& item) {
  std::string clean;
  if (!CleanEntryName(item.header.name, clean)) return {};  // the root
  SplitEntry entry;
  entry.name = clean;
  const std::string_view base = Base(clean);
  if (base == kOpaqueName) return Opaque(entry);
  if (base.starts_with(kMetaPrefix)) return {};
  if (base.starts_with(kWhiteoutPrefix)) {
    std::string removed = clean;
    removed.erase(clean.size() - base.size(), kWhiteoutPrefix.size());
    return Whiteout(entry, removed);
  }
  Result<LayerFiles::Place> place = files_.Find(entry);
  struct stat st {};
  const bool there = place.ok() && fstatat(place->directory, place->name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
  if (there) inodes_.insert(st.st_ino);
  if (names_.Unsure(clean)) return {};
  if (!there) {
    Add(item.header.name, "missing", DescribeType(TypeBits(item.header.type)), "nothing");
    return {};
  }
  return Attributes(item, *place, st);
}

}  // namespace layerstore
