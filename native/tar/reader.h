// Reader: reads a tar entry by entry, as Go's archive/tar does, and keeps the raw bytes between the files' data for
// tar-split. One thread at a time; borrows its input; memory is bounded by the header limits.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "sys/result.h"
#include "tar/entry.h"
#include "tar/pax.h"

namespace layerstore::tar {

class Input {
 public:
  virtual ~Input() = default;
  // At most `max` bytes that lie together, at least one; empty at the end. They stay valid until the next call.
  virtual Result<std::span<const uint8_t>> Take(size_t max) = 0;
};

struct ReaderLimits {
  uint64_t max_header_bytes;
  XattrLimits xattrs;
};

class Reader {
 public:
  Reader(Input& input, const ReaderLimits& limits) : input_(input), limits_(limits) {}

  enum class Step : uint8_t { kEntry, kGlobal, kEnd };
  // Goes to the next entry and skips unread data of the last one. kGlobal: a PAX global header, which is
  // not applied to entries, as in Go; its bytes are in raw(). kEnd: two zero blocks, or the input's end.
  Result<Step> Next(Entry& entry);

  // Data of the entry as the archive has it, at most `max` bytes; empty where all is read.
  Result<std::span<const uint8_t>> ReadData(size_t max);
  [[nodiscard]] uint64_t data_left() const { return data_left_; }

  // After kEnd: what follows, untouched by any rule; empty at the end.
  Result<std::span<const uint8_t>> ReadTrailing(size_t max);

  // Bytes of padding and headers since the owner last took them.
  std::string TakeRaw() { return std::exchange(raw_, {}); }
  // Offset in the tar of the next byte to be read.
  [[nodiscard]] uint64_t offset() const { return offset_; }

 private:
  Result<bool> ReadBlock(uint8_t* block, bool may_end);
  Result<std::string> ReadSpecial(uint64_t size);
  Result<void> SkipPadding();
  Result<void> AddRaw(std::span<const uint8_t> bytes);
  Result<void> ReadGnuSparse(std::span<const uint8_t, kBlockBytes> header, Entry& entry);
  Result<void> ReadSparseMapInData(Entry& entry);
  Result<void> Finish(std::span<const uint8_t, kBlockBytes> header, bool gnu, Entry& entry);
  void SetData(const Entry& entry);
  [[nodiscard]] Error NoHeader(std::span<const uint8_t> bytes, const char* detail) const;
  [[nodiscard]] Error Bad(std::string detail, const std::string& path = {}) const;

  Input& input_;
  ReaderLimits limits_;
  std::string raw_;
  PaxRecords pax_;
  std::string gnu_name_;
  std::string gnu_link_;
  uint64_t header_bytes_ = 0;  // of this entry
  uint64_t data_left_ = 0;
  size_t padding_ = 0;
  uint64_t offset_ = 0;
  bool ended_ = false;
};

}  // namespace layerstore::tar
