#include "sys/fd_io.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <set>

#include "sys/open.h"

namespace layerstore::sys {
namespace {

constexpr size_t kCopyBytes = size_t{1} << 20;
constexpr uint64_t kCopyRange = uint64_t{64} << 20;  // cancellation is tested between two ranges

Result<void> CopyRange(int from, int to, uint64_t begin, uint64_t end, const std::string& path,
                       const CancelToken& cancel) {
  auto in = static_cast<loff_t>(begin);
  auto out = static_cast<loff_t>(begin);
  bool by_kernel = true;
  std::unique_ptr<uint8_t[]> buffer;
  while (static_cast<uint64_t>(in) < end) {
    if (cancel.cancelled()) return Cancelled();
    const uint64_t left = end - static_cast<uint64_t>(in);
    if (by_kernel) {
      const ssize_t got = copy_file_range(from, &in, to, &out, static_cast<size_t>(std::min(left, kCopyRange)), 0);
      if (got > 0) continue;
      if (got == 0) return {};  // the file became shorter; whoever copies looks at it again
      if (errno == EINTR) continue;
      if (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP && errno != EBADF) {
        return SysError("copy_file_range", path);
      }
      by_kernel = false;
      buffer = std::make_unique_for_overwrite<uint8_t[]>(kCopyBytes);
    }
    const ssize_t got = pread(from, buffer.get(), static_cast<size_t>(std::min<uint64_t>(left, kCopyBytes)), in);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SysError("read", path);
    if (got == 0) return {};
    for (ssize_t written = 0; written < got;) {
      const ssize_t put = pwrite(to, buffer.get() + written, static_cast<size_t>(got - written), out);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return SysError("write", path);
      written += put;
      out += put;
    }
    in += got;
  }
  return {};
}

}  // namespace

Result<std::string> ReadWholeFile(const std::string& path) { return ReadWholeFileAt(AT_FDCWD, path.c_str()); }

Result<std::string> ReadWholeFileAt(int directory, const char* name) {
  LS_ASSIGN(const UniqueFd fd, OpenAt(directory, name, O_RDONLY));
  std::string content;
  size_t used = 0;
  for (;;) {
    // Files of /proc have no size, and give short reads that are not their end.
    if (content.size() - used < 4096) content.resize(content.size() + 65536);
    const ssize_t got = read(fd.get(), content.data() + used, content.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SysError("read", name);
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  content.resize(used);
  return content;
}

Result<void> WriteFully(int fd, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(written));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return SysError("write");
    pollfd wait{fd, POLLOUT, 0};
    poll(&wait, 1, -1);  // ends where the other side is closed, too
  }
  return {};
}

Result<size_t> ReadFull(int fd, std::span<uint8_t> into, const std::string& path) {
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t got = read(fd, into.data() + done, into.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SysError("read", path);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Result<void> CopyData(int from, int to, uint64_t size, const std::string& path, const CancelToken& cancel) {
  if (size == 0) return {};
  if (ioctl(to, FICLONE, from) == 0) return {};
  if (ftruncate(to, static_cast<off_t>(size)) != 0) return SysError("ftruncate", path);
  for (uint64_t at = 0; at < size;) {
    const off_t data = lseek(from, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // a hole up to the end
    // File systems without SEEK_DATA: all of it is data.
    const uint64_t begin = data < 0 ? at : static_cast<uint64_t>(data);
    const off_t hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
    const uint64_t end = hole < 0 ? size : std::min(size, static_cast<uint64_t>(hole));
    if (begin >= end) break;
    LS_TRY(CopyRange(from, to, begin, end, path, cancel));
    at = end;
  }
  return {};
}

Result<void> RenameWithFlags(const std::string& from, const std::string& to, unsigned flags) {
  if (syscall(SYS_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) != 0) {
    return SysError(flags == 0 ? "rename" : "renameat2", from, to);
  }
  return {};
}

Result<void> SetNewMode(const std::string& path, uint32_t permissions) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return SysError("stat", path);
  if ((status.st_mode & 07777) == permissions) return {};
  if (chmod(path.c_str(), permissions) != 0) return SysError("chmod", path);
  return {};
}

Result<std::optional<UniqueFd>> LockFile(const std::string& path, bool exclusive) {
  for (;;) {
    Result<UniqueFd> fd = OpenAt(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    // A shared lock works where nothing may be written, if the file is there.
    if (!fd && !exclusive && (fd.error().err == EROFS || fd.error().err == EACCES)) {
      fd = OpenAt(AT_FDCWD, path, O_RDONLY | O_NOFOLLOW);
    }
    if (!fd) return fd.error();
    while (flock(fd->get(), (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) return std::optional<UniqueFd>();
      if (errno != EINTR) return SysError("flock", path);
    }
    // The file may have been replaced between open and flock: then the lock is on one that nobody else will find.
    struct stat held {};
    struct stat named {};
    if (fstat(fd->get(), &held) != 0) return SysError("fstat", path);
    if (lstat(path.c_str(), &named) == 0 && held.st_dev == named.st_dev && held.st_ino == named.st_ino) {
      // A new file whose mode the umask took would not be opened again; that of another user stays as it is.
      if ((held.st_mode & 0600) != 0600) (void)fchmod(fd->get(), 0600);
      return std::optional<UniqueFd>(std::move(*fd));
    }
  }
}

void UnlockFile(UniqueFd lock) {
  if (lock.valid()) flock(lock.get(), LOCK_UN);
}

Result<void> SyncFileSystems(const std::vector<std::string>& paths) {
  std::set<dev_t> done;
  for (const std::string& path : paths) {
    LS_ASSIGN(const UniqueFd fd, OpenPath(path, O_RDONLY));
    struct stat status {};
    if (fstat(fd.get(), &status) != 0) return SysError("fstat", path);
    if (!done.insert(status.st_dev).second) continue;
    if (syncfs(fd.get()) != 0) return SysError("syncfs", path);
  }
  return {};
}

Result<std::unique_ptr<FdSource>> FdSource::Open(const std::string& path) {
  LS_ASSIGN(UniqueFd fd, OpenPath(path, O_RDONLY | O_NOCTTY));
  struct stat status {};
  if (fstat(fd.get(), &status) != 0) return SysError("fstat", path);
  if (S_ISDIR(status.st_mode)) {
    errno = EISDIR;
    return SysError("read", path);
  }
  std::unique_ptr<FdSource> source(new FdSource(std::move(fd), path));
  if (S_ISREG(status.st_mode)) {
    source->size_ = static_cast<uint64_t>(status.st_size);
    posix_fadvise(source->fd_.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  return source;
}

Result<std::unique_ptr<FdSource>> FdSource::OpenRange(const std::string& path, uint64_t offset, uint64_t length) {
  LS_ASSIGN(std::unique_ptr<FdSource> source, Open(path));
  if (lseek(source->fd_.get(), static_cast<off_t>(offset), SEEK_SET) < 0) return SysError("lseek", path);
  source->range_ = true;
  source->left_ = length;
  source->size_ = length;
  return source;
}

Result<size_t> FdSource::Read(std::span<uint8_t> into) {
  if (range_ && left_ < into.size()) into = into.first(static_cast<size_t>(left_));
  if (into.empty()) return size_t{0};
  for (;;) {
    const ssize_t got = read(fd_.get(), into.data(), into.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SysError("read", path_);
    if (!range_) return static_cast<size_t>(got);
    if (got == 0) return DataError(Fault::kBadTar, "the file ends inside the range that holds the tar", path_);
    left_ -= static_cast<uint64_t>(got);
    return static_cast<size_t>(got);
  }
}

FdSink::FdSink(int fd, const CancelToken* cancel) : fd_(fd), waits_(true), cancel_(cancel) {
  struct stat status {};
  waits_ = fstat(fd, &status) != 0 || !S_ISREG(status.st_mode);
}

// Until the descriptor takes bytes, or has failed.
Result<void> FdSink::AwaitRoom() const {
  pollfd waits[2] = {{fd_, POLLOUT, 0}, {-1, POLLIN, 0}};
  if (cancel_ != nullptr) {
    LS_ASSIGN(waits[1].fd, cancel_->WakeDescriptor());
  }
  if (poll(waits, 2, -1) < 0 && errno != EINTR) return SysError("poll");
  return {};
}

Result<void> FdSink::Write(std::span<const uint8_t> bytes) {
  if (!waits_) return WriteFully(fd_, bytes);
  // A pipe whose reader sleeps would hold a plain write, and the cancellation with it: so no write waits.
  bool can_refuse = true;  // the kernel knows RWF_NOWAIT for this kind of file
  while (!bytes.empty()) {
    if (cancel_ != nullptr && cancel_->cancelled()) return Cancelled();
    ssize_t written = -1;
    if (can_refuse) {
      const iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
      written = pwritev2(fd_, &part, 1, -1, RWF_NOWAIT);
      if (written < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)) {
        can_refuse = false;
        continue;
      }
    } else {
      LS_TRY(AwaitRoom());
      if (cancel_ != nullptr && cancel_->cancelled()) return Cancelled();
      // So much fits into a pipe that has room at all.
      written = write(fd_, bytes.data(), std::min(bytes.size(), size_t{PIPE_BUF}));
    }
    if (written >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(written));
    } else if (errno == EAGAIN) {
      LS_TRY(AwaitRoom());
    } else if (errno != EINTR) {
      return SysError("write");
    }
  }
  return {};
}

}  // namespace layerstore::sys
