#include "mount/probe.h"

#include <fcntl.h>

#include <cstring>

#include "sys/mount_api.h"
#include "sys/open.h"

namespace layerstore::mount {
namespace {

std::string Refusal(const Error& error) { return std::string("no: ") + error.syscall + ": " + strerror(error.err); }

MountProbe Ask() {
  MountProbe probe;
  Result<UniqueFd> context = sys::Fsopen("overlay");
  if (!context) {
    probe.fsopen = probe.lowerdir_plus = probe.fsconfig_fd = Refusal(context.error());
    return probe;
  }
  probe.fsopen = "yes";
  // "/" stands for any directory: the context is dropped before a super block is made of it.
  const Result<void> by_path = sys::FsconfigString(context->get(), "lowerdir+", "/");
  probe.lowerdir_plus = by_path.ok() ? "yes" : "no: overlayfs does not know lowerdir+ (Linux 6.7 on)";

  Result<UniqueFd> fresh = sys::Fsopen("overlay");
  Result<UniqueFd> root = sys::OpenPath("/", O_RDONLY | O_DIRECTORY);
  const bool by_fd = fresh.ok() && root.ok() && sys::FsconfigFd(fresh->get(), "lowerdir+", root->get()).ok();
  probe.fsconfig_fd = by_fd ? "yes" : "no: overlayfs takes no descriptors (Linux 6.13 on)";
  return probe;
}

}  // namespace

const MountProbe& ProbeMount() {
  static const MountProbe* const probe = new MountProbe(Ask());  // never destroyed: threads may ask at exit
  return *probe;
}

MountTier BestMountTier() {
  const MountProbe& probe = ProbeMount();
  if (probe.fsconfig_fd == "yes") return MountTier::kFd;
  if (probe.lowerdir_plus == "yes") return MountTier::kLowerdirPlus;
  return MountTier::kClassic;
}

}  // namespace layerstore::mount
