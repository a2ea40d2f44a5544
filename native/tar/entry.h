// One entry of a tar: the header's fields with those of its extension headers merged in. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace layerstore::tar {

inline constexpr size_t kBlockBytes = 512;

enum class Type : char {
  kRegular = '0',
  kHardLink = '1',
  kSymlink = '2',
  kCharDevice = '3',
  kBlockDevice = '4',
  kDirectory = '5',
  kFifo = '6',
  kContiguous = '7',
  kGnuSparse = 'S',
  kGnuLongName = 'L',
  kGnuLongLink = 'K',
  kPaxLocal = 'x',
  kPaxGlobal = 'g',
};

// A piece of a sparse file that has data in the archive.
struct SparseRegion {
  uint64_t offset = 0;
  uint64_t length = 0;
};

struct Entry {
  std::string name;  // bytes, as the archive has it
  std::string link_name;
  // The type byte; what Go calls TypeRegA (0) is already kRegular or, with a slash at the end of the name, kDirectory.
  Type type = Type::kRegular;
  int64_t mode = 0;
  int64_t uid = 0;
  int64_t gid = 0;
  uint64_t size = 0;       // of the file; for types without data, what the header says
  uint64_t data_size = 0;  // of the data that follows in the archive, without a sparse map inside it
  int64_t mtime_seconds = 0;
  uint32_t mtime_nanoseconds = 0;
  int64_t device_major = 0;
  int64_t device_minor = 0;
  bool sparse = false;
  std::vector<SparseRegion> regions;  // where `sparse`
  std::vector<std::pair<std::string, std::string>>
      xattrs;  // SCHILY.xattr.*, names without the prefix, in order of the archive
};

}  // namespace layerstore::tar
