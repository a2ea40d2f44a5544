// Opening files: openat2 where the kernel has it, and paths of any length. No state; any thread.
#pragma once

#include <cstdint>
#include <string>

#include "sys/result.h"
#include "sys/unique_fd.h"

namespace layerstore::sys {

// RESOLVE_* of <linux/openat2.h>, which older header packages lack.
inline constexpr uint64_t kResolveNoXdev = 0x01;
inline constexpr uint64_t kResolveNoMagiclinks = 0x02;
inline constexpr uint64_t kResolveNoSymlinks = 0x04;
inline constexpr uint64_t kResolveBeneath = 0x08;
inline constexpr uint64_t kResolveInRoot = 0x10;

// Whether the kernel has openat2 (since 5.6) and lets this process call it. Probed once a process.
bool HaveOpenat2();

// openat2, O_CLOEXEC added, EAGAIN (a rename raced with "..") retried. `mode` only with O_CREAT or O_TMPFILE.
// Returns the descriptor, or -1 with errno set, for loops that branch on the errno.
int RawOpenat2(int directory, const char* path, int flags, uint32_t mode, uint64_t resolve);
Result<UniqueFd> OpenBeneath(int directory, const std::string& path, int flags, uint32_t mode, uint64_t resolve);

// openat with O_CLOEXEC.
Result<UniqueFd> OpenAt(int directory, const std::string& path, int flags, uint32_t mode = 0);

// open with O_CLOEXEC for a trusted path of any length: a path longer than PATH_MAX is opened in pieces.
Result<UniqueFd> OpenPath(const std::string& path, int flags, uint32_t mode = 0);

// The directory that holds the last component of `path` (O_PATH), and that component. Fails with EINVAL for "/" and for
// a path that ends in "." or "..".
struct ParentPath {
  UniqueFd directory;
  std::string name;
};
Result<ParentPath> OpenParent(const std::string& path);

// "/proc/thread-self/fd/N": the file behind a descriptor of the calling thread, for calls that take only a path.
std::string ProcFdPath(int fd);

}  // namespace layerstore::sys
