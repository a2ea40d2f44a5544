#include "sys/mount_api.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#define SYS_fspick 433
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

namespace layerstore::sys {
namespace {

// enum fsconfig_command, and flags, of <linux/mount.h>, which cannot be included beside <sys/mount.h> everywhere.
constexpr unsigned kSetFlag = 0;
constexpr unsigned kSetString = 1;
constexpr unsigned kSetFd = 5;
constexpr unsigned kCmdCreate = 6;
constexpr unsigned kFsopenCloexec = 1;
constexpr unsigned kFsmountCloexec = 1;
constexpr unsigned kFspickCloexec = 1;
constexpr unsigned kFspickNofollow = 2;
constexpr unsigned kMoveFromEmptyPath = 0x04;
constexpr unsigned kMoveToEmptyPath = 0x40;

// struct mount_attr of <linux/mount.h>.
struct MountAttr {
  uint64_t attr_set = 0;
  uint64_t attr_clr = 0;
  uint64_t propagation = 0;
  uint64_t userns_fd = 0;
};

Result<void> Fsconfig(int context, unsigned command, const char* key, const char* value, int aux) {
  if (syscall(SYS_fsconfig, context, command, key, value, aux) != 0) {
    Error error = SysError("fsconfig");
    if (key != nullptr) error.detail = key;
    return error;
  }
  return {};
}

}  // namespace

Result<void> FsconfigFlag(int context, const char* key) { return Fsconfig(context, kSetFlag, key, nullptr, 0); }

Result<void> FsconfigString(int context, const char* key, const std::string& value) {
  return Fsconfig(context, kSetString, key, value.c_str(), 0);
}

Result<void> FsconfigFd(int context, const char* key, int fd) { return Fsconfig(context, kSetFd, key, nullptr, fd); }

Result<void> FsconfigCreate(int context) { return Fsconfig(context, kCmdCreate, nullptr, nullptr, 0); }

Result<UniqueFd> Fsopen(const char* fs_name) {
  UniqueFd fd(static_cast<int>(syscall(SYS_fsopen, fs_name, kFsopenCloexec)));
  if (!fd.valid()) return SysError("fsopen", fs_name);
  return fd;
}

Result<UniqueFd> Fsmount(int context, uint64_t attributes) {
  UniqueFd fd(static_cast<int>(syscall(SYS_fsmount, context, kFsmountCloexec, static_cast<unsigned>(attributes))));
  if (!fd.valid()) return SysError("fsmount");
  return fd;
}

Result<void> MoveMount(int mount, int target) {
  if (syscall(SYS_move_mount, mount, "", target, "", kMoveFromEmptyPath | kMoveToEmptyPath) != 0) {
    return SysError("move_mount");
  }
  return {};
}

Result<UniqueFd> Fspick(const std::string& target) {
  UniqueFd fd(static_cast<int>(syscall(SYS_fspick, AT_FDCWD, target.c_str(), kFspickCloexec | kFspickNofollow)));
  if (!fd.valid()) return SysError("fspick", target);
  return fd;
}

Result<void> MakeMountPrivate(int mount) {
  MountAttr attributes;
  attributes.propagation = MS_PRIVATE;
  if (syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0) return {};
  if (errno != ENOSYS) return SysError("mount_setattr");
  // Linux before 5.12: by path, which the descriptor of the mount gives.
  const std::string path = "/proc/thread-self/fd/" + std::to_string(mount);
  if (::mount(nullptr, path.c_str(), nullptr, MS_PRIVATE, nullptr) != 0) return SysError("mount");
  return {};
}

std::string ReadContextLog(int context) {
  std::string log;
  char message[1024];
  for (;;) {
    const ssize_t got = read(context, message, sizeof message);
    if (got <= 0) return log;  // ENODATA: no more messages
    std::string_view text(message, static_cast<size_t>(got));
    while (!text.empty() && (text.back() == '\n' || text.back() == 0)) text.remove_suffix(1);
    if (text.size() > 2 && text[1] == ' ') text.remove_prefix(2);
    if (!log.empty()) log += '\n';
    log += text;
  }
}

}  // namespace layerstore::sys
