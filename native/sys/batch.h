// RunBatch: does small file-system steps in order, in one call. When a step fails, what the steps before it made is
// removed; renames stay. Any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sys/result.h"

namespace layerstore::sys {

enum class BatchKind : uint8_t {
  kMkdir,
  kWrite,
  kSymlink,
  kRename,
  kExchange,
  kUnlink,
  kRmdir,
  kChmod,
  kChown,
  kSetxattr,
  kRemovexattr,
  kMknod,
  kFsync,
};

// Which fields are read depends on `kind`; see BatchOp in src/engine/batch-types.ts. Paths are absolute and trusted.
struct BatchOp {
  BatchKind kind = BatchKind::kFsync;
  std::string path;
  std::string dest;   // kRename, kExchange: the other path; kSymlink: the link's target
  std::string name;   // of the extended attribute
  std::string data;   // kWrite, kSetxattr
  uint32_t mode = 0;  // applied as it is, whatever the umask
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  uint32_t major = 0;
  uint32_t minor = 0;
  bool exist_ok = false;
  bool missing_ok = false;
  bool no_replace = false;
  bool sync = false;
};

// On failure removes, in reverse, the directories, files, links and nodes that this batch made. A rename is not
// undone.
Result<void> RunBatch(const std::vector<BatchOp>& ops);

}  // namespace layerstore::sys
