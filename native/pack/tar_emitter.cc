#include "pack/tar_emitter.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <optional>

#include "hash/crc64.h"
#include "sys/fd_io.h"
#include "tar/writer.h"
#include "tree/whiteouts.h"
#include "tree/xattr_io.h"

namespace layerstore::pack {
namespace {

// Files of at least this size get the kernel's read-ahead told.
constexpr uint64_t kAdviseBytes = uint64_t{1} << 20;

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

tar::Entry MakeEntry(const std::string& path, const struct stat& st) {
  tar::Entry entry;
  entry.name = path;
  entry.mode = st.st_mode & 07777;
  entry.uid = st.st_uid;
  entry.gid = st.st_gid;
  entry.mtime_seconds = st.st_mtim.tv_sec;
  entry.mtime_nanoseconds = static_cast<uint32_t>(st.st_mtim.tv_nsec);
  return entry;
}

tar::Type TypeOf(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return tar::Type::kDirectory;
    case S_IFLNK:
      return tar::Type::kSymlink;
    case S_IFCHR:
      return tar::Type::kCharDevice;
    case S_IFBLK:
      return tar::Type::kBlockDevice;
    case S_IFIFO:
      return tar::Type::kFifo;
    default:
      return tar::Type::kRegular;
  }
}

// The data regions where the file has a hole; nothing where it has none or the file system does not tell.
std::vector<tar::SparseRegion> FindRegions(int fd, uint64_t size, bool& sparse) {
  std::vector<tar::SparseRegion> regions;
  sparse = false;
  uint64_t covered = 0;
  for (uint64_t at = 0; at < size;) {
    const off_t data = lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno != ENXIO) return {};
    if (data < 0) break;  // a hole up to the end
    const off_t hole = lseek(fd, data, SEEK_HOLE);
    const uint64_t end = hole < 0 ? size : std::min(size, static_cast<uint64_t>(hole));
    if (static_cast<uint64_t>(data) >= end) break;
    regions.push_back({static_cast<uint64_t>(data), end - static_cast<uint64_t>(data)});
    covered += regions.back().length;
    at = end;
  }
  if (covered == size) return {};
  sparse = true;
  if (regions.empty() || regions.back().offset + regions.back().length < size) regions.push_back({size, 0});
  return regions;
}

}  // namespace

Result<void> TarEmitter::Raw(std::string_view bytes) {
  if (record_ != nullptr) raw_ += bytes;
  return out_.Write(Bytes(bytes));
}

Result<void> TarEmitter::Header(const tar::Entry& entry) {
  entries_++;
  header_.clear();
  LS_TRY(tar::AppendHeader(entry, header_));
  return Raw(header_);
}

Result<void> TarEmitter::Record(const tar::Entry& entry, uint64_t crc) {
  if (record_ == nullptr) return {};
  LS_TRY(record_->AddSegment(raw_));
  raw_.clear();
  return record_->AddFile(entry.name, entry.size, entry.size > 0 ? std::optional(crc) : std::nullopt);
}

Result<void> TarEmitter::Region(const TarSubject& subject, uint64_t offset, uint64_t length, uint64_t& crc,
                                const CancelToken& cancel) {
  if (lseek(subject.data, static_cast<off_t>(offset), SEEK_SET) < 0) return SysError("lseek", subject.path);
  for (uint64_t left = length; left > 0;) {
    if (cancel.cancelled()) return Cancelled();
    LS_ASSIGN(std::span<uint8_t> space, out_.Space());
    if (space.size() > left) space = space.first(static_cast<size_t>(left));
    LS_ASSIGN(const size_t got, sys::ReadFull(subject.data, space, subject.path));
    if (got < space.size())
      return DataError(Fault::kCorrupt, "the file became shorter while it was read", subject.path, out_.bytes());
    if (record_ != nullptr) crc = hash::Crc64Iso(crc, space);
    LS_TRY(out_.Commit(got));
    left -= got;
  }
  return {};
}

Result<void> TarEmitter::Data(const TarSubject& subject, const tar::Entry& entry, uint64_t& crc,
                              const CancelToken& cancel) {
  uint64_t written = 0;
  if (entry.sparse) {
    for (const tar::SparseRegion& region : entry.regions) {
      LS_TRY(Region(subject, region.offset, region.length, crc, cancel));
      written += region.length;
    }
  } else {
    LS_TRY(Region(subject, 0, entry.size, crc, cancel));
    written = entry.size;
  }
  LS_TRY(Record(entry, crc));
  return Raw(std::string(tar::Padding(written), '\0'));
}

Result<void> TarEmitter::Entry(const TarSubject& subject, const CancelToken& cancel) {
  if (tree::IsWhiteoutName(subject.path)) {
    return DataError(Fault::kNotSupported, "a name that begins with .wh. means a removal in a tar", subject.path);
  }
  tar::Entry entry = MakeEntry(subject.path, subject.st);
  entry.type = TypeOf(subject.st.st_mode);
  LS_ASSIGN(std::vector<tree::Xattr> xattrs, tree::ListXattrs(subject.directory, subject.name));
  for (tree::Xattr& xattr : xattrs) entry.xattrs.emplace_back(std::move(xattr.name), std::move(xattr.value));
  switch (entry.type) {
    case tar::Type::kDirectory:
      entry.name += '/';
      break;
    case tar::Type::kSymlink: {
      char target[PATH_MAX];
      const ssize_t length = readlinkat(subject.directory, subject.name.c_str(), target, sizeof target);
      if (length < 0) return SysError("readlinkat", subject.path);
      entry.link_name.assign(target, static_cast<size_t>(length));
      size_ += static_cast<uint64_t>(length);
      break;
    }
    case tar::Type::kCharDevice:
    case tar::Type::kBlockDevice:
      entry.device_major = static_cast<int64_t>(major(subject.st.st_rdev));
      entry.device_minor = static_cast<int64_t>(minor(subject.st.st_rdev));
      break;
    case tar::Type::kRegular:
      entry.size = static_cast<uint64_t>(subject.st.st_size);
      size_ += entry.size;
      if (sparse_ && subject.data >= 0) entry.regions = FindRegions(subject.data, entry.size, entry.sparse);
      if (entry.size >= kAdviseBytes) (void)posix_fadvise(subject.data, 0, 0, POSIX_FADV_SEQUENTIAL);
      break;
    default:
      break;
  }
  LS_TRY(Header(entry));
  uint64_t crc = 0;
  if (entry.type == tar::Type::kRegular && entry.size > 0) return Data(subject, entry, crc, cancel);
  return Record(entry, crc);
}

Result<void> TarEmitter::HardLink(const std::string& path, const struct stat& st, const std::string& target) {
  if (tree::IsWhiteoutName(path))
    return DataError(Fault::kNotSupported, "a name that begins with .wh. means a removal in a tar", path);
  tar::Entry entry = MakeEntry(path, st);
  entry.type = tar::Type::kHardLink;
  entry.link_name = target;
  LS_TRY(Header(entry));
  return Record(entry, 0);
}

Result<void> TarEmitter::Whiteout(const std::string& path) {
  tar::Entry entry;
  entry.name = tree::WhiteoutPath(path);
  entry.mode = 0600;
  LS_TRY(Header(entry));
  return Record(entry, 0);
}

Result<void> TarEmitter::Opaque(const std::string& path, const struct stat& st) {
  tar::Entry entry;
  entry.name = path + "/" + std::string(tree::kOpaqueName);
  entry.mode = st.st_mode & 0777;
  entry.uid = st.st_uid;
  entry.gid = st.st_gid;
  LS_TRY(Header(entry));
  return Record(entry, 0);
}

Result<void> TarEmitter::Finish() {
  LS_TRY(Raw(std::string(tar::kEndBytes, '\0')));
  if (record_ == nullptr) return {};
  LS_TRY(record_->AddSegment(raw_));
  raw_.clear();
  return {};
}

}  // namespace layerstore::pack
