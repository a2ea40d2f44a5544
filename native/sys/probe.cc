#include "sys/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "sys/open.h"

namespace layerstore::sys {
namespace {

std::string Answer(bool works, int error, const char* since) {
  if (works) return "yes";
  if (error == ENOSYS) return std::string("no: Linux ") + since + " on";
  return std::string("no: ") + strerror(error);
}

std::map<std::string, std::string> Ask() {
  std::map<std::string, std::string> found;
  utsname names{};
  found["kernel"] = uname(&names) == 0 ? names.release : "unknown";
  errno = 0;
  found["openat2"] = Answer(HaveOpenat2(), errno == 0 ? ENOSYS : errno, "5.6");
  // Nothing is renamed: both names are missing.
  const long renamed = syscall(SYS_renameat2, -1, "", -1, "", 1U);
  const int error = errno;
  found["renameat2"] = Answer(renamed == 0 || error != ENOSYS, error, "3.15");
  const long copied = syscall(SYS_copy_file_range, -1, nullptr, -1, nullptr, size_t{0}, 0U);
  found["copy_file_range"] = Answer(copied == 0 || errno != ENOSYS, errno, "4.5");
  return found;
}

}  // namespace

const std::map<std::string, std::string>& ProbeKernel() {
  static const auto* const found =
      new std::map<std::string, std::string>(Ask());  // never destroyed: workers ask at exit
  return *found;
}

}  // namespace layerstore::sys
