#include "sys/small_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/directory.h"
#include "sys/open.h"

namespace layerstore::sys {
namespace {

constexpr size_t kPage = 4096;

int OpenSmallFile(int directory, const char* path) {
  // O_NONBLOCK: a FIFO in the place of a file opens at once, and is refused.
  constexpr int kFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  // No directory on the way is a link either: a descriptor for each would cost two calls more.
  if (HaveOpenat2()) return RawOpenat2(directory, path, kFlags, 0, kResolveNoSymlinks | kResolveBeneath);
  return openat(directory, path, kFlags);
}

bool IsRegular(int fd, SmallFile& file) {
  struct stat status {};
  if (fstat(fd, &status) != 0) {
    file.err = errno;
  } else if (!S_ISREG(status.st_mode)) {
    file.err = EINVAL;
  }
  return file.err == 0;
}

SmallFile ReadOne(int directory, const char* path, std::string& buffer) {
  SmallFile file;
  const UniqueFd fd(OpenSmallFile(directory, path));
  if (!fd.valid()) {
    if (errno != ENOENT) file.err = errno;
    return file;
  }
  size_t used = 0;
  while (used < buffer.size()) {
    // At an offset, which neither a FIFO nor a directory takes.
    const ssize_t got = pread(fd.get(), buffer.data() + used, buffer.size() - used, static_cast<off_t>(used));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      file.err = errno == ESPIPE || errno == EISDIR ? EINVAL : errno;
      return file;
    }
    // Of what has an offset, devices give no byte, zeros, or all that is asked for; a small file is seldom any of
    // these.
    const bool odd = got == 0 || buffer[0] == '\0' || static_cast<size_t>(got) == buffer.size();
    if (used == 0 && odd && !IsRegular(fd.get(), file)) return file;
    used += static_cast<size_t>(got);
    // A regular file gives less than it is asked for at its end alone; what is within one page is given at once.
    if (got == 0 || used < kPage) break;
  }
  file.content = buffer.substr(0, used);
  return file;
}

}  // namespace

Result<std::vector<SmallFilesRow>> ReadSmallFiles(const std::string& directory, const std::vector<std::string>& names,
                                                  size_t max_bytes) {
  std::vector<SmallFilesRow> rows;
  LS_ASSIGN(const UniqueFd fd, OpenPath(directory, O_RDONLY | O_DIRECTORY));
  std::string buffer(max_bytes, '\0');
  std::string path;
  DirectoryReader reader(fd.get());
  DirectoryEntry entry;
  for (;;) {
    LS_ASSIGN(const bool more, reader.Next(entry));
    if (!more) return rows;
    if (!IsDirectory(fd.get(), entry)) continue;
    SmallFilesRow row;
    row.directory = entry.name;
    row.files.reserve(names.size());
    path.assign(entry.name).push_back('/');
    for (const std::string& name : names) {
      path.resize(entry.name.size() + 1);
      row.files.push_back(ReadOne(fd.get(), path.append(name).c_str(), buffer));
    }
    rows.push_back(std::move(row));
  }
}

}  // namespace layerstore::sys
