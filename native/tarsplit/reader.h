// Reader: reads the entries of a tar-split record (docs/on-disk-format.md) from its uncompressed JSON lines.
// Records come from disk and from other programs, so nothing in them is trusted: whatever is not exactly such a line is
// Fault::kCorrupt with the byte offset of the line. One thread at a time; owns no descriptor; memory is one line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sys/stream.h"

namespace layerstore::tarsplit {

struct Entry {
  enum class Type : uint8_t { kFile = 1, kSegment = 2 };
  Type type = Type::kSegment;
  std::string name;              // bytes of a file entry, from name_raw where there is one
  uint64_t size = 0;             // of the file's data
  uint64_t crc = 0;              // CRC-64/ISO of the data; 0 where `size` is 0
  std::vector<uint8_t> segment;  // raw bytes of a segment
  uint64_t position = 0;
  uint64_t offset = 0;  // of the line in the uncompressed record
};

class Reader {
 public:
  // A segment of the biggest kind that tar-split writes (1 MiB) takes 1.4 MiB; older writers put all of an archive's
  // trailing padding into one line.
  static constexpr size_t kMaxLineBytes = size_t{16} << 20;

  // `source` gives JSON lines, not gzip, and outlives the reader.
  explicit Reader(ByteSource& source);
  // The next entry; false at the end. `entry` is reused: its buffers keep their capacity.
  Result<bool> Next(Entry& entry);

 private:
  Result<bool> ReadLine(std::string_view& line);

  ByteSource& source_;
  std::vector<char> buffer_;
  size_t begin_ = 0;  // unread bytes of buffer_: [begin_, end_)
  size_t end_ = 0;
  uint64_t offset_ = 0;  // of begin_ in the record
  bool source_ended_ = false;
};

// The name as a path below the layer's root: `.` and empty components dropped, `..` resolved by text as Docker's code
// does (`/..` is the root). False where a relative one would leave the root or is not a file's path (empty, a zero
// byte).
bool CleanEntryName(std::string_view name, std::string& clean);

}  // namespace layerstore::tarsplit
