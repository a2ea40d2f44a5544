// The system calls of the mount API (Linux 5.2 on), by number: neither every glibc nor musl wraps them. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "sys/result.h"
#include "sys/unique_fd.h"

namespace layerstore::sys {

// fsconfig(2): an option of the file system that `context` describes.
Result<void> FsconfigFlag(int context, const char* key);
Result<void> FsconfigString(int context, const char* key, const std::string& value);
Result<void> FsconfigFd(int context, const char* key, int fd);
// Makes the super block.
Result<void> FsconfigCreate(int context);

Result<UniqueFd> Fsopen(const char* fs_name);
// `attributes`: MOUNT_ATTR_*. The mount is not attached yet; closing the descriptor ends it.
Result<UniqueFd> Fsmount(int context, uint64_t attributes);
// Attaches `mount` on the directory `target`.
Result<void> MoveMount(int mount, int target);
// A descriptor of the file system mounted on `target`. It keeps the file system alive, also after the unmount, until it
// is closed. `target` is not a link.
Result<UniqueFd> Fspick(const std::string& target);
// No propagation from or to the mount.
Result<void> MakeMountPrivate(int mount);

// What the kernel wrote to the context, one message a line, without its level letter. Empty where it wrote nothing.
std::string ReadContextLog(int context);

inline constexpr uint64_t kMountAttrReadOnly = 0x01;
inline constexpr uint64_t kMountAttrNoSuid = 0x02;
inline constexpr uint64_t kMountAttrNoDev = 0x04;
inline constexpr uint64_t kMountAttrNoExec = 0x08;
inline constexpr uint64_t kMountAttrNoAtime = 0x10;
inline constexpr uint64_t kMountAttrNoDirAtime = 0x80;

}  // namespace layerstore::sys
