// DirectoryEnds: what of a directory is set when everything in it is made: its times, its default ACL, and a mode that
// would keep its owner out. Kept in memory up to a bound, then in an unlinked file. Belongs to the applying thread.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "sys/result.h"
#include "sys/unique_fd.h"

namespace layerstore::unpack {

struct DirectoryEnd {
  std::string path;
  uint64_t inode = 0;  // of the directory: the path may be another one's by then
  struct timespec mtime = {};
  std::optional<mode_t> mode;
  std::optional<std::string> default_acl;
};

class DirectoryEnds {
 public:
  // `root`: where the file may be made.
  explicit DirectoryEnds(int root) : root_(root) {}
  Result<void> Add(const DirectoryEnd& end);
  // Calls back in the order of Add().
  Result<void> ForEach(const std::function<Result<void>(const DirectoryEnd&)>& visit);

 private:
  static constexpr size_t kMemoryBytes = size_t{4} << 20;
  Result<void> Spill();
  static Result<void> Visit(std::string_view bytes, size_t& used,
                            const std::function<Result<void>(const DirectoryEnd&)>& visit);

  int root_;
  std::string memory_;
  UniqueFd file_;
};

}  // namespace layerstore::unpack
