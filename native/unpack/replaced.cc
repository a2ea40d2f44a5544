#include "unpack/replaced.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "hash/crc64.h"
#include "sys/directory.h"
#include "sys/open.h"
#include "tree/tree.h"

namespace layerstore::unpack {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;
// What a file costs at least, so that a flood of tiny ones is bounded too.
constexpr uint64_t kMinimumCost = 4096;

std::string RandomName() {
  uint64_t bits = 0;
  if (getrandom(&bits, sizeof bits, 0) != sizeof bits) bits = static_cast<uint64_t>(getpid());
  return ".replaced-" + std::to_string(bits);
}

}  // namespace

Result<void> Replaced::MakeScratch() {
  if (scratch_.valid()) return {};
  struct stat inside;
  struct stat beside;
  if (fstat(root_, &inside) != 0) return SysError("fstat", directory_);
  // Beside the tree; inside it where the tree is a mount of its own.
  UniqueFd home(openat(root_, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!home.valid() || fstat(home.get(), &beside) != 0 || beside.st_dev != inside.st_dev) {
    home = UniqueFd(openat(root_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  if (!home.valid()) return SysError("openat", directory_);
  std::string name = RandomName();
  if (mkdirat(home.get(), name.c_str(), 0700) != 0) return SysError("mkdirat", directory_ + "/../" + name);
  home_ = std::move(home);
  name_ = std::move(name);
  scratch_ = UniqueFd(openat(home_.get(), name_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!scratch_.valid()) return SysError("openat", name_);
  return {};
}

Result<void> Replaced::Take(int parent, const std::string& name) {
  if (keep_) return Move(parent, name);
  LS_TRY(tree::RemoveTreeAt(parent, name, name, CancelToken{}));
  taken_++;
  return {};
}

Result<void> Replaced::Move(int parent, const std::string& name) {
  LS_TRY(MakeScratch());
  const std::string number = std::to_string(taken_);
  if (renameat(parent, name.c_str(), scratch_.get(), number.c_str()) != 0) return SysError("renameat", name);
  taken_++;
  return {};
}

// Takes directories apart by moving what is in them up, so that depth costs neither descriptors nor stack; where `keep`
// is not set files are unlinked at once.
Result<void> Replaced::Flatten(const tree::InodeSet* made, bool keep) {
  for (uint64_t number = 0; number < taken_; number++) {
    const std::string item = std::to_string(number);
    struct stat info;
    if (fstatat(scratch_.get(), item.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;
      return SysError("fstatat", item);
    }
    if (S_ISDIR(info.st_mode)) {
      if (fchmodat(scratch_.get(), item.c_str(), 0700, 0) != 0) return SysError("fchmodat", item);
      UniqueFd directory(openat(scratch_.get(), item.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!directory.valid()) return SysError("openat", item);
      sys::DirectoryReader reader(directory.get());
      sys::DirectoryEntry entry;
      while (true) {
        LS_ASSIGN(const bool more, reader.Next(entry));
        if (!more) break;
        LS_TRY(Move(directory.get(), std::string(entry.name)));
      }
      if (unlinkat(scratch_.get(), item.c_str(), AT_REMOVEDIR) != 0) return SysError("unlinkat", item);
      continue;
    }
    const bool wanted =
        keep && S_ISREG(info.st_mode) && info.st_size > 0 && (made == nullptr || made->contains(info.st_ino));
    if (!wanted && unlinkat(scratch_.get(), item.c_str(), 0) != 0) return SysError("unlinkat", item);
  }
  return {};
}

Result<void> Replaced::Index(const tree::InodeSet* made, uint64_t max_kept_bytes, const CancelToken& cancel) {
  if (!scratch_.valid()) return {};
  max_kept_bytes_ = max_kept_bytes;
  LS_TRY(Flatten(made, true));
  std::vector<uint8_t> buffer(kReadBytes);
  for (uint64_t number = 0; number < taken_; number++) {
    const std::string item = std::to_string(number);
    UniqueFd file(openat(scratch_.get(), item.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!file.valid()) {
      if (errno == ENOENT) continue;
      return SysError("openat", item);
    }
    Known known{0, 0, number};
    while (true) {
      if (cancel.cancelled()) return DataError(Fault::kCancelled, "");
      const ssize_t count = read(file.get(), buffer.data(), buffer.size());
      if (count < 0) return SysError("read", item);
      if (count == 0) break;
      known.crc = hash::Crc64Iso(known.crc, std::span(buffer).first(static_cast<size_t>(count)));
      known.size += static_cast<uint64_t>(count);
      if (kept_bytes_ + known.size > max_kept_bytes_) return DataError(Fault::kLimit, "maxKeptBytes");
    }
    kept_bytes_ += std::max(known.size, kMinimumCost);
    known_.push_back(known);
  }
  std::sort(known_.begin(), known_.end());
  return {};
}

Result<UniqueFd> Replaced::Open(uint64_t size, uint64_t crc) const {
  const auto found = std::lower_bound(known_.begin(), known_.end(), Known{size, crc, 0});
  if (found == known_.end() || found->size != size || found->crc != crc) return UniqueFd();
  return sys::OpenAt(scratch_.get(), std::to_string(found->number), O_RDONLY | O_NOFOLLOW);
}

Replaced::~Replaced() {
  if (!scratch_.valid()) return;
  // A destructor has nobody to tell: what cannot be removed is found by the store's recovery.
  (void)Flatten(nullptr, false);
  scratch_.reset();
  (void)unlinkat(home_.get(), name_.c_str(), AT_REMOVEDIR);
}

}  // namespace layerstore::unpack
