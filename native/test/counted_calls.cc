#include "test/counted_calls.h"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace layerstore::test {
namespace {

constexpr size_t kSmallestEntry = 24;  // bytes of a directory's entry as the kernel gives it

}  // namespace

std::atomic<size_t> calls = 0;

}  // namespace layerstore::test

using layerstore::test::calls;

// The linker sends the library's calls here (--wrap in CMakeLists.txt), under the names that 64-bit file offsets give.
// Reading and writing of data is not counted: how many pieces it takes depends on how the threads meet.
// NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp,readability-identifier-naming)
extern "C" {
#define LS_COUNTED(type, name, parameters, arguments) \
  type __real_##name parameters;                      \
  type __wrap_##name parameters {                     \
    calls++;                                          \
    return __real_##name arguments;                   \
  }
LS_COUNTED(int, fstat64, (int fd, struct stat* info), (fd, info))
LS_COUNTED(int, fstatat64, (int at, const char* name, struct stat* info, int flags), (at, name, info, flags))
LS_COUNTED(int, mkdirat, (int at, const char* name, mode_t mode), (at, name, mode))
LS_COUNTED(int, mknodat, (int at, const char* name, mode_t mode, dev_t device), (at, name, mode, device))
LS_COUNTED(int, unlinkat, (int at, const char* name, int flags), (at, name, flags))
LS_COUNTED(int, symlinkat, (const char* target, int at, const char* name), (target, at, name))
LS_COUNTED(int, linkat, (int from, const char* name, int to, const char* link, int flags),
           (from, name, to, link, flags))
LS_COUNTED(int, renameat, (int from, const char* name, int to, const char* other), (from, name, to, other))
LS_COUNTED(int, fchmodat, (int at, const char* name, mode_t mode, int flags), (at, name, mode, flags))
LS_COUNTED(int, fchownat, (int at, const char* name, uid_t uid, gid_t gid, int flags), (at, name, uid, gid, flags))
LS_COUNTED(int, utimensat, (int at, const char* name, const struct timespec* times, int flags),
           (at, name, times, flags))
LS_COUNTED(int, fsetxattr, (int fd, const char* name, const void* value, size_t size, int flags),
           (fd, name, value, size, flags))
LS_COUNTED(ssize_t, fgetxattr, (int fd, const char* name, void* value, size_t size), (fd, name, value, size))
#undef LS_COUNTED

// The mode is read where there is none, too: it is handed on and not looked at.
int __real_openat64(int at, const char* name, int flags, mode_t mode);
int __wrap_openat64(int at, const char* name, int flags, mode_t mode) {
  calls++;
  return __real_openat64(at, name, flags, mode);
}

long __real_syscall(long number, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
  const long result = __real_syscall(number, a, b, c, d, e, f);
  calls++;
  if (number == SYS_getdents64 && result > 0) calls += static_cast<size_t>(result) / layerstore::test::kSmallestEntry;
  return result;
}
}
// NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp,readability-identifier-naming)
