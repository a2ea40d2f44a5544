#include "sys/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "sys/open.h"

namespace layerstore::sys {
namespace {

// The head of struct linux_dirent64, as the kernel lays it out; the zero-terminated name follows it.
struct DirentHead {
  uint64_t inode;
  int64_t offset;
  uint16_t length;
  uint8_t type;
};
constexpr size_t kNameOffset = offsetof(DirentHead, type) + 1;

}  // namespace

bool IsDirectory(int directory, const DirectoryEntry& entry) {
  if (entry.type != DT_UNKNOWN) return entry.type == DT_DIR;
  struct stat status {};
  const int rc = fstatat(directory, entry.name.data(), &status, AT_SYMLINK_NOFOLLOW);
  return rc == 0 && S_ISDIR(status.st_mode);
}

DirectoryReader::DirectoryReader(int fd, size_t buffer_bytes)
    : fd_(fd), capacity_(buffer_bytes), buffer_(std::make_unique<uint64_t[]>((buffer_bytes + 7) / 8)) {}

Result<bool> DirectoryReader::Next(DirectoryEntry& entry) {
  auto* bytes = reinterpret_cast<char*>(buffer_.get());
  for (;;) {
    if (next_ == used_) {
      const long got = syscall(SYS_getdents64, fd_, bytes, capacity_);
      if (got < 0) return SysError("getdents64");
      if (got == 0) return false;
      used_ = static_cast<size_t>(got);
      next_ = 0;
    }
    DirentHead head;
    std::memcpy(&head, bytes + next_, kNameOffset);
    const char* name = bytes + next_ + kNameOffset;
    next_ += head.length;
    if (name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0))) continue;
    entry.name = std::string_view(name);
    entry.inode = head.inode;
    entry.type = head.type;
    return true;
  }
}

Result<std::string> ListNames(const std::string& directory, bool directories) {
  LS_ASSIGN(const UniqueFd fd, OpenPath(directory, O_RDONLY | O_DIRECTORY));
  std::string names;
  DirectoryReader reader(fd.get());
  DirectoryEntry entry;
  for (;;) {
    LS_ASSIGN(const bool more, reader.Next(entry));
    if (!more) return names;
    if (!directories || IsDirectory(fd.get(), entry)) names.append(entry.name).push_back('/');
  }
}

}  // namespace layerstore::sys
