// RecordReader: one record of Docker's layerdb after the other, read and judged without a call of the allocator. One
// thread's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "hash/sha256.h"
#include "sys/unique_fd.h"

namespace layerstore {

// Of a record's directory: a file in it that is made, removed or replaced changes it.
struct RecordStamp {
  uint64_t inode = 0;
  int64_t changed = 0;   // nanoseconds since 1970
  int64_t modified = 0;  // the same
  bool operator==(const RecordStamp&) const = default;
};

// What a record says, in place: thousands of them lie in one piece of memory, which begins as zeros.
struct Candidate {
  static constexpr size_t kHexBytes = 64;
  static constexpr size_t kMaxCacheId = 128;
  using Hex = std::array<char, kHexBytes>;

  [[nodiscard]] std::string_view cache() const { return {cache_id.data(), cache_id_bytes}; }

  Hex name;
  Hex diff;
  Hex parent;
  std::array<char, kMaxCacheId> cache_id;
  double size;
  uint8_t cache_id_bytes;
  bool has_parent;
  bool sound;    // beyond doubt, and the chain id that diff and parent make is its name
  bool lasting;  // `stamp` would tell if it changed, and there is nothing more to it than what stands here
  RecordStamp stamp;
};

inline std::string_view TextOf(const Candidate::Hex& hex) { return {hex.data(), hex.size()}; }

inline constexpr std::string_view kDigestAlgorithm = "sha256:";

bool IsHex(std::string_view text);

class RecordReader {
 public:
  // `own_thread`: nothing else runs on this thread, so it may leave the process' descriptor table. Then files are
  // closed many at once, and neither opening nor closing waits for other threads of the process.
  RecordReader(const std::string& directory, bool own_thread);
  RecordReader(const RecordReader&) = delete;
  RecordReader& operator=(const RecordReader&) = delete;
  ~RecordReader() { CloseAll(); }

  // The record called `candidate.name`. Gives its descriptor.json, in ASCII and until the next call; empty: it has
  // none.
  std::string_view Read(Candidate& candidate);

  // Whether the chain id that diff and parent make is the record's name.
  bool FitsName(const Candidate& candidate);

  [[nodiscard]] int directory() const { return directory_.get(); }

 private:
  enum class Found { kText, kNothing, kDoubtful };
  Found ReadFile(std::string_view name);
  bool ReadCacheId(Candidate& candidate);
  bool ReadDiff(Candidate& candidate);
  bool ReadSize(Candidate& candidate);
  bool ReadParent(Candidate& candidate);
  bool ReadDescriptor();
  int Open();
  void CloseAll();

  // Longer is for the careful reader.
  static constexpr size_t kMaxBytes = 512;
  static constexpr size_t kMaxFileName = 15;

  UniqueFd directory_;
  bool own_table_ = false;
  size_t open_ = 0;
  std::array<char, Candidate::kHexBytes + 1 + kMaxFileName + 1> path_{};
  std::array<char, kMaxBytes + 1> buffer_;
  std::string_view text_;  // of the file that was read last
  Sha256 hash_;
};

}  // namespace layerstore
