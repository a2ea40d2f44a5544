#include "unpack/directory_ends.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>

namespace layerstore::unpack {
namespace {

struct Fixed {
  uint32_t path_bytes;
  uint32_t acl_bytes;
  uint32_t mode;
  uint8_t has_mode;
  uint8_t has_acl;
  uint16_t unused;
  uint64_t inode;
  int64_t seconds;
  int64_t nanoseconds;
};

}  // namespace

Result<void> DirectoryEnds::Add(const DirectoryEnd& end) {
  Fixed fixed{};
  fixed.path_bytes = static_cast<uint32_t>(end.path.size());
  fixed.acl_bytes = end.default_acl.has_value() ? static_cast<uint32_t>(end.default_acl->size()) : 0;
  fixed.has_acl = end.default_acl.has_value() ? 1 : 0;
  fixed.has_mode = end.mode.has_value() ? 1 : 0;
  fixed.mode = end.mode.value_or(0);
  fixed.inode = end.inode;
  fixed.seconds = end.mtime.tv_sec;
  fixed.nanoseconds = end.mtime.tv_nsec;
  memory_.append(reinterpret_cast<const char*>(&fixed), sizeof fixed);
  memory_ += end.path;
  if (end.default_acl.has_value()) memory_ += *end.default_acl;
  return memory_.size() >= kMemoryBytes ? Spill() : Result<void>();
}

Result<void> DirectoryEnds::Spill() {
  if (!file_.valid()) {
    file_ = UniqueFd(openat(root_, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!file_.valid()) {
      // A file system without unlinked files: memory has to do.
      if (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT) return {};
      return SysError("openat", "O_TMPFILE");
    }
  }
  for (size_t done = 0; done < memory_.size();) {
    const ssize_t count = write(file_.get(), memory_.data() + done, memory_.size() - done);
    if (count < 0) return SysError("write", "O_TMPFILE");
    done += static_cast<size_t>(count);
  }
  memory_.clear();
  return {};
}

// Visits the whole records in `bytes`; `used`: their bytes.
Result<void> DirectoryEnds::Visit(std::string_view bytes, size_t& used,
                                  const std::function<Result<void>(const DirectoryEnd&)>& visit) {
  used = 0;
  DirectoryEnd end;
  while (bytes.size() - used >= sizeof(Fixed)) {
    Fixed fixed;
    std::memcpy(&fixed, bytes.data() + used, sizeof fixed);
    const size_t whole = sizeof fixed + fixed.path_bytes + fixed.acl_bytes;
    if (bytes.size() - used < whole) break;
    const std::string_view text = bytes.substr(used + sizeof fixed, fixed.path_bytes + fixed.acl_bytes);
    end.path = text.substr(0, fixed.path_bytes);
    end.default_acl.reset();
    end.mode.reset();
    if (fixed.has_acl != 0) end.default_acl = std::string(text.substr(fixed.path_bytes));
    if (fixed.has_mode != 0) end.mode = static_cast<mode_t>(fixed.mode);
    end.inode = fixed.inode;
    end.mtime.tv_sec = fixed.seconds;
    end.mtime.tv_nsec = static_cast<long>(fixed.nanoseconds);
    used += whole;
    LS_TRY(visit(end));
  }
  return {};
}

Result<void> DirectoryEnds::ForEach(const std::function<Result<void>(const DirectoryEnd&)>& visit) {
  size_t used = 0;
  if (file_.valid()) {
    if (lseek(file_.get(), 0, SEEK_SET) != 0) return SysError("lseek", "O_TMPFILE");
    std::string window;
    while (true) {
      const size_t have = window.size();
      window.resize(have + (size_t{1} << 20));
      const ssize_t count = read(file_.get(), window.data() + have, window.size() - have);
      if (count < 0) return SysError("read", "O_TMPFILE");
      window.resize(have + static_cast<size_t>(count));
      LS_TRY(Visit(window, used, visit));
      window.erase(0, used);
      if (count == 0) break;
    }
  }
  return Visit(memory_, used, visit);
}

}  // namespace layerstore::unpack
