// Overlay mounts by mount(2), for kernels before 6.7. The option string holds one page, so directories are told as
// numbers relative to /proc/thread-self/fd, the working directory of a thread of its own: five bytes a layer, whatever
// the path.
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <optional>

#include "mount/overlay_internal.h"
#include "sys/open.h"
#include "sys/thread.h"

namespace layerstore::mount {
namespace {

// Runs in the thread whose working directory is its own.
Result<void> MountHere(const OverlayMount& mount) {
  const SplitOptions options = SplitMountOptions(mount.options, mount.upper.empty());
  LS_ASSIGN(const sys::ParentPath target, sys::OpenParent(mount.target));
  const std::string target_text = std::to_string(target.directory.get()) + "/" + target.name;

  std::string data;
  for (const std::string& option : options.overlay) data += option + ",";
  std::vector<UniqueFd> lowers;
  data += "lowerdir=";
  for (const std::string& lower : mount.lowers) {
    LS_ASSIGN(UniqueFd fd, sys::OpenPath(lower, O_PATH | O_DIRECTORY));
    if (!lowers.empty()) data += ':';
    data += std::to_string(fd.get());
    lowers.push_back(std::move(fd));
  }
  Anchor upper;
  Anchor work;
  if (!mount.upper.empty()) {
    LS_ASSIGN(upper, AnchorDirectory(mount.upper));
    LS_ASSIGN(work, AnchorDirectory(mount.work));
    data += ",upperdir=" + upper.Text("") + ",workdir=" + work.Text("");
  }
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (data.size() >= page) {
    return DataError(Fault::kNotSupported,
                     "the options of this mount take " + std::to_string(data.size()) + " bytes, and mount(2) takes " +
                         std::to_string(page - 1) + "; Linux 6.7 and later have no such limit",
                     mount.target);
  }
  if (chdir("/proc/thread-self/fd") != 0) return SysError("chdir", "/proc/thread-self/fd");
  if (::mount("overlay", target_text.c_str(), "overlay", options.classic_flags, data.c_str()) != 0) {
    Error error = SysError("mount", mount.target);
    error.detail = data;
    return error;
  }
  const UniqueFd root(open(target_text.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  Result<void> writable = root.valid() ? RequireWritable(root.get(), mount, options) : SysError("open", mount.target);
  if (!writable) {
    umount2(target_text.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    return writable;
  }
  if (::mount(nullptr, target_text.c_str(), nullptr, MS_PRIVATE, nullptr) != 0) {
    Error error = SysError("mount", mount.target);
    umount2(target_text.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    return error;
  }
  return {};
}

}  // namespace

Result<void> MountClassic(const OverlayMount& mount) {
  std::optional<Result<void>> outcome;
  LS_ASSIGN(sys::Thread thread, sys::Thread::Start([&] { outcome.emplace(MountHere(mount)); }, {"ls-mount", true, 0}));
  thread.Join();
  return *outcome;
}

}  // namespace layerstore::mount
