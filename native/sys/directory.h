// DirectoryReader: getdents64 with a buffer of its own. One thread at a time; borrows the descriptor.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "sys/result.h"

namespace layerstore::sys {

struct DirectoryEntry {
  std::string_view name;  // valid until the next call; name.data() ends in a zero byte
  uint64_t inode = 0;
  uint8_t type = 0;  // DT_*; DT_UNKNOWN where the file system does not tell
};

class DirectoryReader {
 public:
  // `fd`: a directory opened for reading, at its beginning.
  explicit DirectoryReader(int fd, size_t buffer_bytes = size_t{64} << 10);
  // The next entry but "." and ".."; false at the end. Order is the file system's.
  Result<bool> Next(DirectoryEntry& entry);

 private:
  int fd_;
  size_t capacity_;
  std::unique_ptr<uint64_t[]> buffer_;  // words, for the alignment of the kernel's records
  size_t used_ = 0;
  size_t next_ = 0;
};

// Whether the entry is a directory, not a link to one. Where the file system gave no type, fstatat tells. `directory`:
// the directory that was read.
bool IsDirectory(int directory, const DirectoryEntry& entry);

// The names in `directory`, or only those of its directories, each followed by a slash. Any thread.
Result<std::string> ListNames(const std::string& directory, bool directories);

}  // namespace layerstore::sys
