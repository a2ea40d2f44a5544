#include "sys/open.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string_view>

namespace layerstore::sys {
namespace {

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

// struct open_how of <linux/openat2.h>.
struct OpenHow {
  uint64_t flags;
  uint64_t mode;
  uint64_t resolve;
};

// Longest piece given to one openat while a long path is walked; PATH_MAX counts the final zero byte.
constexpr size_t kPieceBytes = PATH_MAX - 64;

}  // namespace

int RawOpenat2(int directory, const char* path, int flags, uint32_t mode, uint64_t resolve) {
  OpenHow how{static_cast<uint64_t>(flags | O_CLOEXEC), mode, resolve};
  for (;;) {
    const long fd = syscall(SYS_openat2, directory, path, &how, sizeof how);
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) return static_cast<int>(fd);
  }
}

bool HaveOpenat2() {
  static const bool have = [] {
    const UniqueFd fd(RawOpenat2(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, kResolveInRoot));
    return fd.valid();
  }();
  return have;
}

Result<UniqueFd> OpenBeneath(int directory, const std::string& path, int flags, uint32_t mode, uint64_t resolve) {
  UniqueFd fd(RawOpenat2(directory, path.c_str(), flags, mode, resolve));
  if (!fd.valid()) return SysError("openat2", path);
  return fd;
}

Result<UniqueFd> OpenAt(int directory, const std::string& path, int flags, uint32_t mode) {
  for (;;) {
    UniqueFd fd(openat(directory, path.c_str(), flags | O_CLOEXEC, mode));
    if (fd.valid()) return fd;
    if (errno != EINTR) return SysError("open", path);
  }
}

Result<UniqueFd> OpenPath(const std::string& path, int flags, uint32_t mode) {
  if (path.size() < PATH_MAX) return OpenAt(AT_FDCWD, path, flags, mode);
  std::string_view rest = path;
  UniqueFd at;
  while (rest.size() >= kPieceBytes) {
    // Cut behind the last slash of the piece, so that a piece never ends inside a component.
    const size_t slash = rest.rfind('/', kPieceBytes - 1);
    if (slash == std::string_view::npos) {
      errno = ENAMETOOLONG;
      return SysError("open", path);
    }
    const std::string piece(rest.substr(0, slash + 1));
    UniqueFd next(openat(at.valid() ? at.get() : AT_FDCWD, piece.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!next.valid()) return SysError("open", path);
    at = std::move(next);
    rest.remove_prefix(slash + 1);
    while (!rest.empty() && rest.front() == '/') rest.remove_prefix(1);
  }
  const std::string last(rest.empty() ? std::string_view(".") : rest);
  UniqueFd fd(openat(at.valid() ? at.get() : AT_FDCWD, last.c_str(), flags | O_CLOEXEC, mode));
  if (!fd.valid()) return SysError("open", path);
  return fd;
}

Result<ParentPath> OpenParent(const std::string& path) {
  std::string_view view = path;
  while (view.size() > 1 && view.back() == '/') view.remove_suffix(1);
  const size_t slash = view.rfind('/');
  const std::string name(slash == std::string_view::npos ? view : view.substr(slash + 1));
  if (name.empty() || name == "." || name == "..") {
    errno = EINVAL;
    return SysError("open", path);
  }
  std::string parent = slash == std::string_view::npos ? "." : std::string(view.substr(0, slash + 1));
  Result<UniqueFd> directory = OpenPath(parent, O_PATH | O_DIRECTORY);
  if (!directory) {
    Error error = directory.error();
    error.path = path;
    return error;
  }
  return ParentPath{std::move(*directory), name};
}

std::string ProcFdPath(int fd) { return "/proc/thread-self/fd/" + std::to_string(fd); }

}  // namespace layerstore::sys
