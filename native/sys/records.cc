#include "sys/records.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sys/directory.h"
#include "sys/open.h"

namespace layerstore {
namespace {

RecordFile ReadOne(int directory, const std::string& name, std::string& buffer) {
  RecordFile file;
  // O_NONBLOCK: a FIFO in the place of a record opens at once, and is refused.
  const UniqueFd fd(openat(directory, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno != ENOENT) file.err = errno;
    return file;
  }
  struct stat status {};
  if (fstat(fd.get(), &status) != 0) {
    file.err = errno;
    return file;
  }
  if (!S_ISREG(status.st_mode)) {
    file.err = EINVAL;
    return file;
  }
  size_t used = 0;
  while (used < buffer.size()) {
    const ssize_t got = read(fd.get(), buffer.data() + used, buffer.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      file.err = errno;
      return file;
    }
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  file.content = buffer.substr(0, used);
  return file;
}

}  // namespace

Result<std::vector<RecordRow>> ReadRecords(const std::string& directory, const std::vector<std::string>& names,
                                           size_t max_bytes) {
  std::vector<RecordRow> rows;
  LS_ASSIGN(const UniqueFd fd, OpenPath(directory, O_RDONLY | O_DIRECTORY));
  std::string buffer(max_bytes, '\0');
  DirectoryReader reader(fd.get());
  DirectoryEntry entry;
  for (;;) {
    LS_ASSIGN(const bool more, reader.Next(entry));
    if (!more) return rows;
    if (entry.type != DT_DIR && entry.type != DT_UNKNOWN) continue;
    const UniqueFd child(openat(fd.get(), entry.name.data(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!child.valid()) {
      // No directory after all, or one that was removed meanwhile.
      if (errno == ENOTDIR || errno == ENOENT || errno == ELOOP) continue;
      return SysError("open", directory + "/" + std::string(entry.name));
    }
    RecordRow row;
    row.directory = entry.name;
    row.files.reserve(names.size());
    for (const std::string& name : names) row.files.push_back(ReadOne(child.get(), name, buffer));
    rows.push_back(std::move(row));
  }
}

}  // namespace layerstore
