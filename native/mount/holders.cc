#include <fcntl.h>
#include <linux/stat.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string_view>

#include "mount/mount_table.h"
#include "sys/directory.h"
#include "sys/fd_io.h"
#include "sys/open.h"

namespace layerstore::mount {
namespace {

// Which mount a file lies on: by mount id where the kernel tells it (5.8 on), else by device.
struct MountIdentity {
  bool known = false;
  uint64_t mount_id = 0;
  uint64_t device = 0;

  static MountIdentity Of(int directory, const char* path, int flags) {
    MountIdentity identity;
    struct statx status {};
    if (syscall(SYS_statx, directory, path, flags | AT_NO_AUTOMOUNT, STATX_TYPE | STATX_MNT_ID, &status) != 0)
      return identity;
    identity.known = true;
    identity.mount_id = (status.stx_mask & STATX_MNT_ID) != 0 ? status.stx_mnt_id : 0;
    identity.device = (uint64_t{status.stx_dev_major} << 32) | status.stx_dev_minor;
    return identity;
  }
  [[nodiscard]] bool SameMount(const MountIdentity& other) const {
    if (!known || !other.known) return false;
    return mount_id != 0 && other.mount_id != 0 ? mount_id == other.mount_id : device == other.device;
  }
};

bool AllDigits(std::string_view text) { return text.find_first_not_of("0123456789") == std::string_view::npos; }

bool HoldsByDescriptor(int process, const MountIdentity& target) {
  const Result<UniqueFd> fds = sys::OpenAt(process, "fd", O_RDONLY | O_DIRECTORY);
  if (!fds) return false;
  sys::DirectoryReader reader(fds->get(), 8192);
  sys::DirectoryEntry entry;
  for (;;) {
    const Result<bool> more = reader.Next(entry);
    if (!more.ok() || !*more) return false;
    if (target.SameMount(MountIdentity::Of(fds->get(), entry.name.data(), 0))) return true;
  }
}

bool HoldsByMap(int process, const std::string& target) {
  const Result<std::string> maps = sys::ReadWholeFileAt(process, "maps");
  return maps.ok() && maps->find(" " + target + "/") != std::string::npos;
}

bool Holds(int process, const std::string& path, const MountIdentity& target) {
  return target.SameMount(MountIdentity::Of(process, "cwd", 0)) ||
         target.SameMount(MountIdentity::Of(process, "root", 0)) || HoldsByDescriptor(process, target) ||
         HoldsByMap(process, path);
}

}  // namespace

std::vector<Holder> FindHolders(const std::string& target) {
  std::vector<Holder> holders;
  Result<UniqueFd> root = sys::OpenPath(target, O_PATH | O_DIRECTORY);
  const Result<UniqueFd> processes = sys::OpenPath("/proc", O_RDONLY | O_DIRECTORY);
  if (!root || !processes) return holders;
  const MountIdentity identity = MountIdentity::Of(root->get(), "", AT_EMPTY_PATH);
  // The descriptor itself would show up as this process' own.
  root->reset();
  sys::DirectoryReader reader(processes->get());
  sys::DirectoryEntry entry;
  for (;;) {
    const Result<bool> more = reader.Next(entry);
    if (!more.ok() || !*more) return holders;
    if (!AllDigits(entry.name)) continue;
    // A process that ended meanwhile, or that may not be looked at, holds nothing that can be told.
    const Result<UniqueFd> process = sys::OpenAt(processes->get(), std::string(entry.name), O_PATH | O_DIRECTORY);
    if (!process || !Holds(process->get(), target, identity)) continue;
    Holder holder;
    holder.pid = std::atoi(entry.name.data());
    Result<std::string> command = sys::ReadWholeFileAt(process->get(), "comm");
    if (command.ok()) {
      while (!command->empty() && command->back() == '\n') command->pop_back();
      holder.command = std::move(*command);
    }
    holders.push_back(std::move(holder));
  }
}

}  // namespace layerstore::mount
