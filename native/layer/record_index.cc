#include "layer/record_index.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include "hash/sha256.h"
#include "sys/files.h"
#include "sys/open.h"

namespace layerstore {
namespace {

constexpr char kMagic[] = "layerstore record index 1\n";
constexpr size_t kMaxEntries = 1 << 22;
constexpr unsigned kMountIdUnique = 0x4000;  // STATX_MNT_ID_UNIQUE
constexpr size_t kMountIdOffset = 0x90;      // of stx_mnt_id
constexpr double kMaxSize = 1e15;

struct Header {
  std::array<char, sizeof kMagic - 1> magic{};
  std::array<char, 36> boot{};
  uint64_t mount = 0;
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t count = 0;
};

Sha256Digest DigestOf(std::span<const uint8_t> bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

int64_t Nanoseconds(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

}  // namespace

// As it lies in the file, in the byte order of the machine, which no boot changes.
struct RecordIndex::Entry {
  Candidate::Hex name;
  Candidate::Hex diff;
  Candidate::Hex parent;
  std::array<char, Candidate::kMaxCacheId> cache_id;
  RecordStamp stamp;
  double size;
  uint8_t cache_id_bytes;
  uint8_t has_parent;
  std::array<uint8_t, 6> padding;
};

bool TakeStamp(int directory, Candidate& candidate) {
  std::array<char, Candidate::kHexBytes + 1> name{};
  std::ranges::copy(candidate.name, name.data());
  struct stat status {};
  if (fstatat(directory, name.data(), &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(status.st_mode)) return false;
  candidate.stamp = {status.st_ino, Nanoseconds(status.st_ctim), Nanoseconds(status.st_mtim)};
  return true;
}

std::optional<RecordIndex::Scope> RecordIndex::ScopeOf(int directory) {
  const Result<std::string> boot = ReadWholeFile("/proc/sys/kernel/random/boot_id");
  struct stat status {};
  Scope scope;
  if (!boot || boot->size() < scope.boot.size() || fstat(directory, &status) != 0) return std::nullopt;
  boot->copy(scope.boot.data(), scope.boot.size());
  struct statx more {};
  if (statx(directory, "", AT_EMPTY_PATH, kMountIdUnique, &more) != 0 || (more.stx_mask & kMountIdUnique) == 0) {
    return std::nullopt;
  }
  // stx_mnt_id of <linux/stat.h>, which older C libraries have as the first of the spare numbers.
  std::memcpy(&scope.mount, reinterpret_cast<const char*>(&more) + kMountIdOffset, sizeof scope.mount);
  scope.device = status.st_dev;
  scope.inode = status.st_ino;
  return scope;
}

RecordIndex RecordIndex::Load(const std::string& path, const Scope& scope) {
  RecordIndex index;
  const Result<UniqueFd> fd = OpenPath(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  struct stat status {};
  if (!fd || fstat(fd->get(), &status) != 0 || !S_ISREG(status.st_mode)) return index;
  constexpr size_t kAround = sizeof(Header) + sizeof(Sha256Digest);
  const auto size = static_cast<size_t>(status.st_size);
  if (size < kAround || (size - kAround) % sizeof(Entry) != 0 || (size - kAround) / sizeof(Entry) > kMaxEntries) {
    return index;
  }
  Pages pages(size);
  const std::span<uint8_t> bytes = pages.bytes().first(size);
  for (size_t at = 0; at < size;) {
    const ssize_t got = read(fd->get(), bytes.data() + at, size - at);
    if (got <= 0) return index;
    at += static_cast<size_t>(got);
  }
  const std::span<const uint8_t> content = bytes.first(size - sizeof(Sha256Digest));
  const Sha256Digest digest = DigestOf(content);
  if (!std::ranges::equal(bytes.last(digest.size()), digest)) return index;
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (!std::ranges::equal(header.magic, std::string_view(kMagic))) return index;
  if (Scope{header.boot, header.mount, header.device, header.inode} != scope) return index;
  index.count_ = (size - kAround) / sizeof(Entry);
  if (header.count != index.count_) return RecordIndex();
  index.bytes_ = std::move(pages);
  index.by_name_ = NameTable(index.count_);
  for (size_t i = 0; i < index.count_; ++i) {
    const uint8_t* const name = index.bytes_.bytes().data() + sizeof(Header) + i * sizeof(Entry);
    index.by_name_.Insert({reinterpret_cast<const char*>(name), Candidate::kHexBytes}, static_cast<int32_t>(i));
  }
  return index;
}

RecordIndex::Entry RecordIndex::At(size_t i) const {
  Entry entry;
  std::memcpy(&entry, bytes_.bytes().data() + sizeof(Header) + i * sizeof(Entry), sizeof entry);
  return entry;
}

bool RecordIndex::Take(Candidate& candidate) const {
  static_assert(std::is_trivially_copyable_v<Entry> && offsetof(Entry, name) == 0);
  if (count_ == 0) return false;
  const int32_t row = by_name_.Find(TextOf(candidate.name));
  if (row == NameTable::kNone) return false;
  const Entry entry = At(static_cast<size_t>(row));
  if (entry.stamp != candidate.stamp || entry.cache_id_bytes > Candidate::kMaxCacheId) return false;
  if (!(entry.size >= 0 && entry.size < kMaxSize)) return false;  // nor a number that is none
  candidate.diff = entry.diff;
  candidate.parent = entry.parent;
  candidate.cache_id = entry.cache_id;
  candidate.cache_id_bytes = entry.cache_id_bytes;
  candidate.size = entry.size;
  candidate.has_parent = entry.has_parent != 0;
  return true;
}

Result<void> RecordIndex::Write(const std::string& path, const Scope& scope, std::span<const Candidate> candidates) {
  Header header;
  std::ranges::copy(std::string_view(kMagic), header.magic.data());
  header.boot = scope.boot;
  header.mount = scope.mount;
  header.device = scope.device;
  header.inode = scope.inode;
  std::string bytes(sizeof header, '\0');
  bytes.reserve(sizeof header + candidates.size() * sizeof(Entry) + sizeof(Sha256Digest));
  for (const Candidate& candidate : candidates) {
    if (!candidate.lasting) continue;
    Entry entry{};
    entry.name = candidate.name;
    entry.diff = candidate.diff;
    if (candidate.has_parent) entry.parent = candidate.parent;
    candidate.cache().copy(entry.cache_id.data(), candidate.cache_id_bytes);
    entry.stamp = candidate.stamp;
    entry.size = candidate.size;
    entry.cache_id_bytes = candidate.cache_id_bytes;
    entry.has_parent = candidate.has_parent ? 1 : 0;
    bytes.append(reinterpret_cast<const char*>(&entry), sizeof entry);
    ++header.count;
  }
  std::memcpy(bytes.data(), &header, sizeof header);
  const Sha256Digest digest = DigestOf({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  bytes.append(reinterpret_cast<const char*>(digest.data()), digest.size());

  // A writer's alone, and what a crash leaves of it the next one removes, as it does with all files of this ending.
  const std::string temporary = path + ".tmp";
  const auto write = [&]() -> Result<void> {
    LS_ASSIGN(const UniqueFd fd, OpenAt(AT_FDCWD, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
    LS_TRY(WriteFully(fd.get(), {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
    if (rename(temporary.c_str(), path.c_str()) != 0) return SysError("rename", path);
    return {};
  };
  Result<void> written = write();
  if (!written) unlink(temporary.c_str());
  return written;
}

}  // namespace layerstore
