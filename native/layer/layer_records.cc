#include "layer/layer_records.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <string_view>
#include <unordered_map>

#include "hash/sha256.h"
#include "sys/directory.h"
#include "sys/open.h"
#include "sys/thread.h"

namespace layerstore {
namespace {

constexpr std::string_view kAlgorithm = "sha256:";
constexpr size_t kHexLength = 64;
constexpr size_t kDigestLength = 71;
// Longer is for the careful reader.
constexpr size_t kMaxBytes = 512;
constexpr size_t kMaxCacheId = 128;
constexpr size_t kMaxSizeDigits = 15;  // exact as a double

// Two: what is cached is read at the speed of the processors, of which a small machine has two; more would only
// contend.
constexpr size_t kReaders = 2;
constexpr size_t kAtOnce = 64;         // layers that a reader takes
constexpr size_t kWorthThreads = 256;  // layers
constexpr size_t kOpenAtOnce = 128;    // files of a reader with a descriptor table of its own

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

struct Candidate {
  std::string name;
  std::string diff;
  std::string parent;  // empty: none
  std::string cache_id;
  std::string descriptor;
  double size = 0;
  bool sound = false;
};

bool IsHex(std::string_view text) {
  return text.size() == kHexLength &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsDigest(std::string_view text) { return text.starts_with(kAlgorithm) && IsHex(text.substr(kAlgorithm.size())); }

bool IsCacheId(std::string_view text) {
  const auto letter = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  return !text.empty() && text.size() <= kMaxCacheId && letter(text[0]) &&
         std::ranges::all_of(text, [&](char c) { return letter(c) || c == '_' || c == '.' || c == '-'; });
}

bool IsSize(std::string_view text) {
  return !text.empty() && text.size() <= kMaxSizeDigits &&
         std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

bool IsAscii(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c > 0; });
}

// The chain id that `candidate` makes must be its name: a flipped digit in either file shows here.
bool FitsName(const Candidate& candidate) {
  const std::string_view diff = candidate.diff;
  if (candidate.parent.empty()) return diff.substr(kAlgorithm.size()) == candidate.name;
  std::string both = candidate.parent;
  both.append(" ").append(diff);
  Sha256 hash;
  hash.Update({reinterpret_cast<const uint8_t*>(both.data()), both.size()});
  return std::string_view(FormatDigest(hash.Finish())).substr(kAlgorithm.size()) == candidate.name;
}

// RecordReader: reads small files of one thread. Where it has a descriptor table of its own, files are closed many at
// once, and neither opening nor closing waits for other threads of the process.
class RecordReader {
 public:
  // `own_thread`: nothing else runs on this thread, so it may leave the process' descriptor table.
  RecordReader(const std::string& directory, bool own_thread) {
    // The new table has none of the process' files but the first three: nothing is kept open here that others close.
    own_table_ = own_thread && syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_UNSHARE) == 0;
    Result<UniqueFd> opened = OpenPath(directory, O_RDONLY | O_DIRECTORY);
    if (opened) directory_ = std::move(*opened);
  }
  RecordReader(const RecordReader&) = delete;
  RecordReader& operator=(const RecordReader&) = delete;
  ~RecordReader() { CloseAll(); }

  void Read(Candidate& candidate) {
    std::string size;
    candidate.sound = directory_.valid() && ReadFile(candidate.name, "cache-id", false, candidate.cache_id) &&
                      IsCacheId(candidate.cache_id) && ReadFile(candidate.name, "diff", false, candidate.diff) &&
                      IsDigest(candidate.diff) && ReadFile(candidate.name, "size", false, size) && IsSize(size) &&
                      ReadFile(candidate.name, "parent", true, candidate.parent) &&
                      (candidate.parent.empty() || IsDigest(candidate.parent)) &&
                      ReadFile(candidate.name, "descriptor.json", true, candidate.descriptor) &&
                      (candidate.descriptor.empty() || IsAscii(candidate.descriptor)) && FitsName(candidate);
    if (candidate.sound) candidate.size = std::strtod(size.c_str(), nullptr);
  }

 private:
  // False for whatever is not plainly there, or, where it is `optional`, plainly missing.
  bool ReadFile(const std::string& layer, const char* name, bool optional, std::string& content) {
    path_.assign(layer).append("/").append(name);
    const int fd = Open();
    if (fd < 0) return optional && errno == ENOENT;
    // At an offset, which a FIFO does not take. What else is no regular file gives nothing that passes for a record.
    const ssize_t got = pread(fd, buffer_.data(), buffer_.size(), 0);
    if (!own_table_) {
      close(fd);
    } else if (++open_ == kOpenAtOnce) {
      CloseAll();
    }
    if (got <= 0 || static_cast<size_t>(got) == buffer_.size()) return false;
    content.assign(buffer_.data(), static_cast<size_t>(got));
    return true;
  }

  int Open() {
    // O_NONBLOCK: a FIFO in the place of a record opens at once. No directory on the way is a link either.
    constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    if (HaveOpenat2()) {
      return RawOpenat2(directory_.get(), path_.c_str(), kFlags, 0, kResolveNoSymlinks | kResolveBeneath);
    }
    return openat(directory_.get(), path_.c_str(), kFlags);
  }

  // The directory has the lowest descriptor of the table that was free, so all of the records' are above it.
  void CloseAll() {
    if (open_ > 0) syscall(SYS_close_range, static_cast<unsigned>(directory_.get()) + 1, ~0U, 0U);
    open_ = 0;
  }

  UniqueFd directory_;
  bool own_table_ = false;
  size_t open_ = 0;
  std::string path_;
  std::array<char, kMaxBytes + 1> buffer_;
};

void ReadAll(const std::string& directory, std::vector<Candidate>& candidates) {
  std::atomic<size_t> cursor{0};
  const auto work = [&](bool own_thread) {
    RecordReader reader(directory, own_thread);
    for (;;) {
      const size_t first = cursor.fetch_add(kAtOnce);
      if (first >= candidates.size()) return;
      const size_t end = std::min(first + kAtOnce, candidates.size());
      for (size_t i = first; i < end; ++i) reader.Read(candidates[i]);
    }
  };
  std::vector<Thread> threads;
  if (candidates.size() >= kWorthThreads) {
    for (size_t i = 0; i < kReaders; ++i) {
      Result<Thread> started = Thread::Start([&work] { work(true); }, {"ls-records", false, 0});
      if (started) threads.push_back(std::move(*started));
    }
  }
  if (threads.empty()) work(false);
  for (Thread& thread : threads) thread.Join();
}

// Rows in an order in which a chain's layers follow each other.
void Arrange(std::vector<Candidate>& candidates, LayerRecords& records) {
  constexpr int32_t kNone = -1;
  std::unordered_map<std::string_view, size_t> by_name;
  by_name.reserve(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].sound) by_name.emplace(candidates[i].name, i);
  }
  std::vector<std::vector<size_t>> children(candidates.size());
  std::vector<std::pair<size_t, int32_t>> next;  // candidate, its parent's row
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!candidates[i].sound) continue;
    if (candidates[i].parent.empty()) {
      next.emplace_back(i, kNone);
    } else if (const auto parent = by_name.find(std::string_view(candidates[i].parent).substr(kAlgorithm.size()));
               parent != by_name.end()) {
      children[parent->second].push_back(i);
    }
  }
  std::vector<bool> placed(candidates.size());
  while (!next.empty()) {
    const auto [at, parent] = next.back();
    next.pop_back();
    Candidate& candidate = candidates[at];
    const auto row = static_cast<int32_t>(records.ends.size());
    records.text.append(kAlgorithm).append(candidate.name).append(candidate.diff).append(candidate.cache_id);
    records.ends.push_back(static_cast<uint32_t>(records.text.size()));
    records.sizes.push_back(candidate.size);
    records.parents.push_back(parent);
    if (!candidate.descriptor.empty()) {
      records.descriptors.emplace_back(static_cast<uint32_t>(row), std::move(candidate.descriptor));
    }
    placed[at] = true;
    for (const size_t child : children[at]) next.emplace_back(child, row);
  }
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!placed[i]) records.others.push_back(std::move(candidates[i].name));
  }
}

}  // namespace

Result<LayerRecords> ReadLayerRecords(const std::string& directory) {
  LayerRecords records;
  std::vector<Candidate> candidates;
  {
    LS_ASSIGN(const UniqueFd fd, OpenPath(directory, O_RDONLY | O_DIRECTORY));
    DirectoryReader reader(fd.get());
    DirectoryEntry entry;
    for (;;) {
      LS_ASSIGN(const bool more, reader.Next(entry));
      if (!more) break;
      if (entry.type == DT_DIR && IsHex(entry.name)) {
        candidates.emplace_back().name = entry.name;
      } else {
        records.others.emplace_back(entry.name);
      }
    }
  }
  // Rows are told by 32 bits, and the text by as many.
  if (candidates.size() > UINT32_MAX / (2 * kDigestLength + kMaxCacheId)) {
    return DataError(Fault::kLimit, "records", directory);
  }
  ReadAll(directory, candidates);
  Arrange(candidates, records);
  return records;
}

}  // namespace layerstore
