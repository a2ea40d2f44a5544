#include "layer/layer_record_reader.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "sys/directory.h"
#include "sys/open.h"

namespace layerstore {
namespace {

constexpr size_t kMaxSizeDigits = 15;  // exact as a double
constexpr size_t kOpenAtOnce = 128;    // files, of a reader with a descriptor table of its own

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

bool IsDigest(std::string_view text) {
  return text.starts_with(kDigestAlgorithm) && IsHex(text.substr(kDigestAlgorithm.size()));
}

void TakeHex(std::string_view digest, Candidate::Hex& hex) {
  std::memcpy(hex.data(), digest.data() + kDigestAlgorithm.size(), hex.size());
}

}  // namespace

bool IsHex(std::string_view text) {
  return text.size() == Candidate::kHexBytes &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

RecordReader::RecordReader(const std::string& directory, bool own_thread) {
  // The new table has none of the process' files but the first three: nothing is kept open here that others close.
  own_table_ = own_thread && syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_UNSHARE) == 0;
  Result<UniqueFd> opened = OpenPath(directory, O_RDONLY | O_DIRECTORY);
  if (opened) directory_ = std::move(*opened);
}

std::string_view RecordReader::Read(Candidate& candidate) {
  std::memcpy(path_.data(), candidate.name.data(), candidate.name.size());
  path_[Candidate::kHexBytes] = '/';
  candidate.sound = directory_.valid() && ReadCacheId(candidate) && ReadDiff(candidate) && ReadSize(candidate) &&
                    ReadParent(candidate) && FitsName(candidate) && ReadDescriptor();
  return candidate.sound ? text_ : std::string_view();
}

bool RecordReader::ReadCacheId(Candidate& candidate) {
  if (ReadFile("cache-id") != Found::kText || text_.size() > Candidate::kMaxCacheId || !IsLayerId(text_)) return false;
  std::memcpy(candidate.cache_id.data(), text_.data(), text_.size());
  candidate.cache_id_bytes = static_cast<uint8_t>(text_.size());
  return true;
}

bool RecordReader::ReadDiff(Candidate& candidate) {
  if (ReadFile("diff") != Found::kText || !IsDigest(text_)) return false;
  TakeHex(text_, candidate.diff);
  return true;
}

bool RecordReader::ReadSize(Candidate& candidate) {
  if (ReadFile("size") != Found::kText || text_.size() > kMaxSizeDigits) return false;
  uint64_t size = 0;
  for (const char c : text_) {
    if (c < '0' || c > '9') return false;
    size = size * 10 + static_cast<uint64_t>(c - '0');
  }
  candidate.size = static_cast<double>(size);
  return true;
}

bool RecordReader::ReadParent(Candidate& candidate) {
  const Found found = ReadFile("parent");
  candidate.has_parent = found == Found::kText;
  if (!candidate.has_parent) return found == Found::kNothing;
  if (!IsDigest(text_)) return false;
  TakeHex(text_, candidate.parent);
  return true;
}

bool RecordReader::ReadDescriptor() {
  const Found found = ReadFile("descriptor.json");
  if (found != Found::kText) return found == Found::kNothing;
  return std::ranges::all_of(text_, [](char c) { return c > 0; });
}

// The chain id that `candidate` makes must be its name: a flipped digit in either file shows here.
bool RecordReader::FitsName(const Candidate& candidate) {
  if (!candidate.has_parent) return candidate.diff == candidate.name;
  constexpr size_t kDigest = kDigestAlgorithm.size() + Candidate::kHexBytes;
  std::array<char, 2 * kDigest + 1> both;
  char* at = both.data();
  const auto put = [&at](std::string_view text) { at = std::ranges::copy(text, at).out; };
  put(kDigestAlgorithm);
  put(TextOf(candidate.parent));
  put(" ");
  put(kDigestAlgorithm);
  put(TextOf(candidate.diff));
  hash_.Restart();
  hash_.Update({reinterpret_cast<const uint8_t*>(both.data()), both.size()});
  return FormatHex(hash_.Finish()) == candidate.name;
}

// Doubtful is whatever is neither plainly there nor plainly missing.
RecordReader::Found RecordReader::ReadFile(std::string_view name) {
  text_ = {};
  char* const end = std::ranges::copy(name, path_.data() + Candidate::kHexBytes + 1).out;
  *end = '\0';
  const int fd = Open();
  if (fd < 0) return errno == ENOENT ? Found::kNothing : Found::kDoubtful;
  // At an offset, which a FIFO does not take. What else is no regular file gives nothing that passes for a record.
  const ssize_t got = pread(fd, buffer_.data(), buffer_.size(), 0);
  if (!own_table_) {
    close(fd);
  } else if (++open_ == kOpenAtOnce) {
    CloseAll();
  }
  if (got <= 0 || static_cast<size_t>(got) == buffer_.size()) return Found::kDoubtful;
  text_ = {buffer_.data(), static_cast<size_t>(got)};
  return Found::kText;
}

int RecordReader::Open() {
  // O_NONBLOCK: a FIFO in the place of a record opens at once. No directory on the way is a link either.
  constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  if (HaveOpenat2()) {
    return RawOpenat2(directory_.get(), path_.data(), kFlags, 0, kResolveNoSymlinks | kResolveBeneath);
  }
  return openat(directory_.get(), path_.data(), kFlags);
}

// The directory has the lowest descriptor of the table that was free, so all of the records' are above it.
void RecordReader::CloseAll() {
  if (open_ > 0) syscall(SYS_close_range, static_cast<unsigned>(directory_.get()) + 1, ~0U, 0U);
  open_ = 0;
}

}  // namespace layerstore
