// ReadSmallFiles: small files of many directories in one call. Any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sys/result.h"

namespace layerstore::sys {

struct SmallFile {
  std::optional<std::string> content;  // nullopt and err 0: there is no such file
  int err = 0;
};
struct SmallFilesRow {
  std::string directory;
  std::vector<SmallFile> files;  // in the order of `names`
};

// The first `max_bytes` of each of `names` in each directory right below `directory`. Links are not followed (ELOOP),
// and only regular files are read (EINVAL).
Result<std::vector<SmallFilesRow>> ReadSmallFiles(const std::string& directory, const std::vector<std::string>& names,
                                                  size_t max_bytes);

}  // namespace layerstore::sys
