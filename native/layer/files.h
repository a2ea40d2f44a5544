// Small calls about one file that the tree code shares: attributes relative to a directory descriptor, xattrs without
// following a link, data in and out. No state; any thread.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sys/cancel.h"
#include "sys/stream.h"
#include "sys/unique_fd.h"

namespace layerstore {

// read() until `into` is full or the file ends; EINTR retried. Errors carry `path`.
Result<size_t> ReadFull(int fd, std::span<uint8_t> into, const std::string& path);

struct Xattr {
  std::string name;
  std::string value;
  friend bool operator==(const Xattr&, const Xattr&) = default;
};

// The value of one xattr of `name` in `directory` (the directory's own where `name` is empty); a link is not followed.
// False where there is none, or the file system has no xattrs.
Result<bool> GetXattr(int directory, const std::string& name, const char* xattr, std::string& value);
// All of a file's xattrs, in byte order of name; overlayfs' own only where asked for.
Result<std::vector<Xattr>> ListXattrs(int directory, const std::string& name, bool with_overlay = false);
Result<void> SetXattr(int directory, const std::string& name, const std::string& xattr, std::string_view value);
// No error where there is none.
Result<void> RemoveXattr(int directory, const std::string& name, const std::string& xattr);
// Names of overlayfs' own xattrs on the file.
Result<std::vector<std::string>> ListOverlayXattrs(int directory, const std::string& name);

// Mode (but of links), owner, times of `st`, in the order in which none undoes another.
Result<void> SetOwnerAndMode(int directory, const std::string& name, const struct stat& st);
Result<void> SetTimes(int directory, const std::string& name, const struct stat& st);

// Content of `from` (of `size` bytes) into the new file `to`: reflink, else copy_file_range of the data regions, else
// read and write. Holes stay holes.
Result<void> CopyData(int from, int to, uint64_t size, const std::string& path, const CancelToken& cancel);

[[nodiscard]] inline bool IsWhiteoutDevice(const struct stat& st) { return S_ISCHR(st.st_mode) && st.st_rdev == 0; }
[[nodiscard]] inline Error Cancelled() { return DataError(Fault::kCancelled, {}); }

}  // namespace layerstore
