#include "tree/verify_entry.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <iterator>

#include "sys/open.h"
#include "tarsplit/reader.h"
#include "tree/entry_metadata.h"
#include "tree/xattr_io.h"
#include "tree/xattr_policy.h"

namespace layerstore::tree {
namespace {

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

mode_t TypeBits(tar::Type type) {
  switch (type) {
    case tar::Type::kDirectory:
      return S_IFDIR;
    case tar::Type::kSymlink:
      return S_IFLNK;
    case tar::Type::kCharDevice:
      return S_IFCHR;
    case tar::Type::kBlockDevice:
      return S_IFBLK;
    case tar::Type::kFifo:
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

// ACLs that say no more than the mode does are kept in the mode alone, an empty one not at all (posix_acl.c).
bool MayBeAbsent(std::string_view name, const std::string& value) {
  constexpr size_t kHeader = 4;
  constexpr size_t kEntry = 8;
  return (name == kAccessAcl && value.size() <= kHeader + 3 * kEntry) ||
         (name == kDefaultAcl && value.size() <= kHeader);
}

tarsplit::Entry LinkTarget(const tar::Entry& header) {
  tarsplit::Entry target;
  if (!tarsplit::CleanEntryName(header.link_name, target.name)) target.name = header.link_name;
  return target;
}

// False: the file system has no attributes of this kind, so ingest left it out.
bool HasXattrs(int directory, const std::string& name, const std::string& xattr) {
  const std::string path = sys::ProcFdPath(directory) + "/" + name;
  return lgetxattr(path.c_str(), xattr.c_str(), nullptr, 0) >= 0 || errno != EOPNOTSUPP;
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

void EntryNames::Add(std::string_view name, tar::Type type, bool recorded) {
  std::string clean;
  if (!tarsplit::CleanEntryName(name, clean)) return;
  added_++;
  if (!recorded) unsure_.insert(Hash(clean));
  Name(clean);
  const std::string_view base = Base(clean);
  if (!base.starts_with(kWhiteoutPrefix)) {
    if (type != tar::Type::kDirectory) Remove(clean);
  } else if (!base.starts_with(kWhiteoutMetaPrefix)) {
    // What a whiteout names exists in the tree, as a device or removed.
    std::string removed = clean;
    removed.erase(clean.size() - base.size(), kWhiteoutPrefix.size());
    Name(removed);
    Remove(removed);
  }
  // Implied parents.
  for (size_t slash = clean.rfind('/'); slash != std::string::npos && slash > 0; slash = clean.rfind('/', slash - 1)) {
    clean.resize(slash);
    if (!implied_.insert(Hash(clean)).second) break;
  }
}

void EntryNames::Name(std::string_view path) {
  if (!known_.try_emplace(Hash(path), added_).second) unsure_.insert(Hash(path));
}

// Only a directory that earlier entries lie below takes anything with it.
void EntryNames::Remove(std::string_view path) {
  if (Implied(path)) removed_[Hash(path)] = added_;
}

bool EntryNames::Unsure(std::string_view path) const {
  if (unsure_.contains(Hash(path))) return true;
  if (removed_.empty()) return false;
  const auto named = known_.find(Hash(path));
  if (named == known_.end()) return false;
  for (size_t slash = path.rfind('/'); slash != std::string_view::npos && slash > 0;
       slash = path.rfind('/', slash - 1)) {
    const auto removed = removed_.find(Hash(path.substr(0, slash)));
    if (removed != removed_.end() && removed->second > named->second) return true;
  }
  return false;
}

// Whether an earlier entry led to the inode: what it says of it is then taken back, as far as this one says it anew.
bool EntryCheck::Seen(uint64_t inode, bool hard_link) {
  if (inodes_.insert(inode).second) return false;
  const auto at = doubts_.find(inode);
  if (at == doubts_.end()) return true;
  at->second.attributes.clear();
  if (!hard_link) at->second.nature.clear();
  return true;
}

// Directories that lie behind a link have another path than the entry says.
void EntryCheck::NoteParents(const std::string& clean) {
  for (size_t slash = clean.rfind('/'); slash != std::string::npos && slash > 0; slash = clean.rfind('/', slash - 1)) {
    tarsplit::Entry below;
    below.name = clean.substr(0, slash) + "/below";
    const Result<LayerReader::Place> place = files_.Find(below);
    struct stat st {};
    if (place.ok() && fstat(place->directory, &st) == 0) inodes_.insert(st.st_ino);
  }
}

// Whether another entry may have taken the place of a directory on the way, and of the marks in it.
bool EntryCheck::DirectoryReplaced(const std::string& clean, const Result<LayerReader::Place>& place) const {
  const bool found = place.ok() && !place->linked;
  for (size_t slash = clean.rfind('/'); slash != std::string::npos && slash > 0; slash = clean.rfind('/', slash - 1)) {
    const std::string_view parent = std::string_view(clean).substr(0, slash);
    if (names_.Unsure(parent) || (!found && names_.Named(parent))) return true;
  }
  return false;
}

Result<void> EntryCheck::Whiteout(const tarsplit::Entry& entry, const std::string& removed) {
  tarsplit::Entry target = entry;
  target.name = removed;
  Result<LayerReader::Place> place = files_.Find(target);
  struct stat st {};
  const bool there = place.ok() && fstatat(place->directory, place->name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
  if (there) (void)Seen(st.st_ino, false);
  // The same archive may have made the name, before or after, or a directory for what lies below it: then those count.
  if (names_.Unsure(entry.name) || names_.Unsure(removed)) return {};
  if ((!there || place->linked) && DirectoryReplaced(removed, place)) return {};
  if (there && S_ISDIR(st.st_mode) && names_.Implied(removed)) return {};
  if (whiteouts_ == Whiteouts::kApply) {
    if (there) Add(removed, "whiteout", "nothing", DescribeType(st.st_mode));
    return {};
  }
  if (!there || !IsWhiteoutDevice(st))
    Add(removed, "whiteout", "a 0:0 device", there ? DescribeType(st.st_mode) : "nothing");
  return {};
}

Result<void> EntryCheck::Opaque(const tarsplit::Entry& entry) {
  if (whiteouts_ == Whiteouts::kApply || names_.Unsure(entry.name)) return {};
  // Through the marker's own name: its parent is the directory.
  Result<LayerReader::Place> place = files_.Find(entry);
  if (DirectoryReplaced(entry.name, place)) return {};
  std::string value;
  const char* xattr = whiteouts_ == Whiteouts::kOverlayUser ? "user.overlay.opaque" : "trusted.overlay.opaque";
  if (place) {
    LS_TRY(GetXattr(place->directory, {}, xattr, value));
  }
  if (value != "y") Add(entry.name, "opaque", "y", value.empty() ? "nothing" : value);
  return {};
}

// `seen`: another entry led to the inode, and may have given it attributes of its own.
Result<void> EntryCheck::Xattrs(const tar::Entry& header, const LayerReader::Place& place, const struct stat& st,
                                bool seen, Doubts& doubts) {
  LS_ASSIGN(const std::vector<Xattr> found, ListXattrs(place.directory, place.name));
  for (const auto& [name, value] : header.xattrs) {
    if (!IsKeptXattr(name, IsStandIn(header, st) ? TypeBits(header.type) : st.st_mode, privilege_)) continue;
    const auto at =
        std::find_if(found.begin(), found.end(), [&name = name](const Xattr& xattr) { return xattr.name == name; });
    if (at == found.end()) {
      if (MayBeAbsent(name, value) || !HasXattrs(place.directory, place.name, name)) continue;
      doubts.attributes.push_back({header.name, "xattr " + name, Show(value), "nothing", false});
    } else if (at->value != value) {
      doubts.attributes.push_back({header.name, "xattr " + name, Show(value), Show(at->value), false});
    }
  }
  if (seen) return {};
  for (const Xattr& xattr : found) {
    const bool wanted = std::any_of(header.xattrs.begin(), header.xattrs.end(),
                                    [&](const auto& pair) { return pair.first == xattr.name; });
    // The kernel labels files by itself where SELinux is on.
    if (!wanted && xattr.name != "security.selinux")
      doubts.attributes.push_back({header.name, "xattr " + xattr.name, "nothing", Show(xattr.value), false});
  }
  return {};
}

// A hard link whose name is gone, or another file's by now: what it set on the file that it led to is set all the same.
void EntryCheck::LostLink(const tar::Entry& header, const std::string& clean) {
  const tarsplit::Entry target = LinkTarget(header);
  if (!names_.Unsure(target.name)) {
    Result<LayerReader::Place> place = files_.Find(target);
    struct stat st {};
    if (!place || fstatat(place->directory, place->name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return;
    linked_[clean] = st.st_ino;
  } else if (const auto at = linked_.find(target.name); at != linked_.end()) {
    linked_[clean] = at->second;
  } else {
    return;
  }
  (void)Seen(linked_[clean], true);
}

Result<void> EntryCheck::HardLink(const tar::Entry& header, const struct stat& st) {
  const tarsplit::Entry target = LinkTarget(header);
  // The name may have been given to another file since.
  if (names_.Unsure(target.name)) {
    linked_[target.name] = st.st_ino;
    return {};
  }
  Result<LayerReader::Place> place = files_.Find(target);
  struct stat other {};
  if (!place || fstatat(place->directory, place->name.c_str(), &other, AT_SYMLINK_NOFOLLOW) != 0) {
    Add(header.name, "hard link", header.link_name, "nothing");
  } else if (other.st_ino != st.st_ino || other.st_dev != st.st_dev) {
    Add(header.name, "hard link", header.link_name, "another file");
  }
  return {};
}

// Whether an empty file has the name of a device that its maker had no right to make.
bool EntryCheck::IsStandIn(const tar::Entry& header, const struct stat& st) const {
  const mode_t type = TypeBits(header.type);
  return privilege_ != Privilege::kFull && (type == S_IFCHR || type == S_IFBLK) && S_ISREG(st.st_mode) &&
         st.st_size == 0;
}

// What a file is, as against what is set on it. Nothing more is said of one of another type.
Result<void> EntryCheck::Nature(const tarsplit::TarView::Item& item, const LayerReader::Place& place,
                                const struct stat& st, Doubts& doubts) {
  const tar::Entry& header = item.header;
  const auto add = [&](const char* what, std::string expected, std::string found) {
    doubts.nature.push_back({header.name, what, std::move(expected), std::move(found), false});
  };
  const mode_t type = TypeBits(header.type);
  if (IsStandIn(header, st)) return {};
  if ((st.st_mode & S_IFMT) != type) {
    add("type", DescribeType(type), DescribeType(st.st_mode));
    return {};
  }
  if (type == S_IFREG && item.file.size == 0 && st.st_size != 0) add("size", "0", std::to_string(st.st_size));
  if ((type == S_IFCHR || type == S_IFBLK) && (header.device_major != static_cast<int64_t>(major(st.st_rdev)) ||
                                               header.device_minor != static_cast<int64_t>(minor(st.st_rdev)))) {
    add("device", Owner(header.device_major, header.device_minor), Owner(major(st.st_rdev), minor(st.st_rdev)));
  }
  if (type == S_IFLNK) {
    char link[PATH_MAX];
    const ssize_t length = readlinkat(place.directory, place.name.c_str(), link, sizeof link);
    if (length < 0) return SysError("readlinkat", header.name);
    const std::string found(link, static_cast<size_t>(length));
    if (found != header.link_name) add("link target", header.link_name, found);
  }
  return {};
}

Result<void> EntryCheck::Attributes(const tar::Entry& header, const LayerReader::Place& place, const struct stat& st,
                                    bool seen, Doubts& doubts) {
  const auto add = [&](const char* what, std::string expected, std::string found, bool cosmetic) {
    doubts.attributes.push_back({header.name, what, std::move(expected), std::move(found), cosmetic});
  };
  // An ACL decides what the mode's group bits are.
  const bool acl = std::any_of(header.xattrs.begin(), header.xattrs.end(),
                               [](const auto& pair) { return pair.first == kAccessAcl; });
  const mode_t compared = static_cast<mode_t>(acl ? 07000 : 07777) & ~BitsOfMaker(S_ISDIR(st.st_mode), privilege_);
  const EntryMetadata made = EntryMetadata::Of(header, privilege_);
  if (!S_ISLNK(st.st_mode) && ((made.mode ^ st.st_mode) & compared) != 0) {
    add("mode", Octal(made.mode), Octal(st.st_mode & 07777), false);
  }
  if (!made.OwnedBy(st.st_uid, st.st_gid))
    add("owner", Owner(header.uid, header.gid), Owner(st.st_uid, st.st_gid), false);
  if (!HoldsTime(header, st.st_mtim)) {
    add("mtime", Time(header.mtime_seconds, header.mtime_nanoseconds), Time(st.st_mtim.tv_sec, st.st_mtim.tv_nsec),
        true);
  }
  return Xattrs(header, place, st, seen, doubts);
}

Result<void> EntryCheck::Check(const tarsplit::TarView::Item& item) {
  const tar::Entry& header = item.header;
  std::string clean;
  if (!tarsplit::CleanEntryName(header.name, clean)) return {};  // the root
  if (!item.recorded) NoteParents(clean);
  tarsplit::Entry entry;
  entry.name = clean;
  const std::string_view base = Base(clean);
  if (base == kOpaqueName) return Opaque(entry);
  if (base.starts_with(kWhiteoutMetaPrefix)) return {};
  if (base.starts_with(kWhiteoutPrefix)) {
    std::string removed = clean;
    removed.erase(clean.size() - base.size(), kWhiteoutPrefix.size());
    return Whiteout(entry, removed);
  }
  Result<LayerReader::Place> place = files_.Find(entry);
  struct stat st {};
  const bool there = place.ok() && fstatat(place->directory, place->name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
  const bool hard_link = header.type == tar::Type::kHardLink;
  const bool seen = there && Seen(st.st_ino, hard_link);
  if (names_.Unsure(clean)) {
    linked_.erase(clean);
    if (hard_link) LostLink(header, clean);
    return {};
  }
  if (!there) {
    Add(header.name, "missing", DescribeType(TypeBits(header.type)), "nothing");
    return {};
  }
  Doubts doubts;
  if (hard_link) {
    LS_TRY(HardLink(header, st));
    // The first place was lent until the target was looked for.
    place = files_.Find(entry);
    if (!place) return place.error();
  } else {
    LS_TRY(Nature(item, *place, st, doubts));
  }
  const bool other_type = !doubts.nature.empty() && doubts.nature.front().what == "type";
  if (!other_type) LS_TRY(Attributes(header, *place, st, seen, doubts));
  if (doubts.nature.empty() && doubts.attributes.empty()) return {};
  const auto [at, added] = doubts_.try_emplace(st.st_ino);
  Doubts& kept = at->second;
  if (added) kept.order = next_order_++;
  std::move(doubts.nature.begin(), doubts.nature.end(), std::back_inserter(kept.nature));
  kept.attributes = std::move(doubts.attributes);
  return {};
}

void EntryCheck::Finish() {
  std::vector<Doubts*> told;
  told.reserve(doubts_.size());
  for (auto& [inode, doubts] : doubts_) told.push_back(&doubts);
  std::sort(told.begin(), told.end(), [](const Doubts* a, const Doubts* b) { return a->order < b->order; });
  for (Doubts* doubts : told) {
    std::move(doubts->nature.begin(), doubts->nature.end(), std::back_inserter(problems_));
    std::move(doubts->attributes.begin(), doubts->attributes.end(), std::back_inserter(problems_));
  }
  doubts_.clear();
}

}  // namespace layerstore::tree
