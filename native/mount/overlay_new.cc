// Overlay mounts through the mount API: one fsconfig call a directory, so that neither the number of layers nor the
// length of their paths meets the page-size limit of mount(2), and nothing is escaped.
#include <fcntl.h>
#include <sys/mount.h>

#include <string_view>

#include "mount/overlay_internal.h"
#include "sys/mount_api.h"
#include "sys/open.h"

namespace layerstore::mount {
namespace {

// `error` with what the kernel said about it, and about which directory.
Error Explain(Error error, int context, const std::string& path) {
  const std::string log = sys::ReadContextLog(context);
  if (!log.empty()) error.detail = error.detail.empty() ? log : error.detail + ": " + log;
  if (error.path.empty()) error.path = path;
  return error;
}

// FSCONFIG_SET_FD wants a descriptor that was opened for reading.
Result<void> AddByDescriptor(int context, const char* key, const std::string& path) {
  LS_ASSIGN(const UniqueFd fd, sys::OpenPath(path, O_RDONLY | O_DIRECTORY));
  const Result<void> set = sys::FsconfigFd(context, key, fd.get());
  if (!set) return Explain(set.error(), context, path);
  return {};
}

Result<void> AddByProcPath(int context, const char* key, const std::string& path, bool show) {
  Anchor anchor;
  if (show) {
    LS_ASSIGN(anchor, AnchorDirectory(path));
  } else {
    LS_ASSIGN(anchor.fd, sys::OpenPath(path, O_PATH | O_DIRECTORY));
  }
  const Result<void> set = sys::FsconfigString(context, key, anchor.Text("/proc/thread-self/fd/"));
  if (!set) return Explain(set.error(), context, path);
  return {};
}

Result<void> AddOption(int context, const std::string& option) {
  const size_t equals = option.find('=');
  if (equals == std::string::npos) {
    const Result<void> set = sys::FsconfigFlag(context, option.c_str());
    if (!set) return Explain(set.error(), context, {});
    return {};
  }
  std::string value = option.substr(equals + 1);
  // Quotes keep commas together in an option string; here every value stands alone.
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"') value = value.substr(1, value.size() - 2);
  const Result<void> set = sys::FsconfigString(context, option.substr(0, equals).c_str(), value);
  if (!set) return Explain(set.error(), context, {});
  return {};
}

}  // namespace

Result<void> MountWithContext(const OverlayMount& mount, bool by_descriptor) {
  const SplitOptions options = SplitMountOptions(mount.options, mount.upper.empty());
  LS_ASSIGN(const UniqueFd target, sys::OpenPath(mount.target, O_PATH | O_DIRECTORY));
  LS_ASSIGN(const UniqueFd context, sys::Fsopen("overlay"));
  LS_TRY(sys::FsconfigString(context.get(), "source", "overlay"));
  for (const std::string& option : options.overlay) LS_TRY(AddOption(context.get(), option));
  for (const std::string& lower : mount.lowers) {
    LS_TRY(by_descriptor ? AddByDescriptor(context.get(), "lowerdir+", lower)
                         : AddByProcPath(context.get(), "lowerdir+", lower, false));
  }
  if (!mount.upper.empty()) {
    LS_TRY(by_descriptor ? AddByDescriptor(context.get(), "upperdir", mount.upper)
                         : AddByProcPath(context.get(), "upperdir", mount.upper, true));
    LS_TRY(by_descriptor ? AddByDescriptor(context.get(), "workdir", mount.work)
                         : AddByProcPath(context.get(), "workdir", mount.work, true));
  }
  const Result<void> created = sys::FsconfigCreate(context.get());
  if (!created) return Explain(created.error(), context.get(), mount.target);
  Result<UniqueFd> detached = sys::Fsmount(context.get(), options.attributes);
  if (!detached) return Explain(detached.error(), context.get(), mount.target);

  LS_TRY(RequireWritable(detached->get(), mount, options));

  // Until it is attached the mount lives by its descriptor alone: every return above leaves nothing behind.
  Result<void> attached = sys::MoveMount(detached->get(), target.get());
  if (!attached) return Explain(attached.error(), context.get(), mount.target);
  // A mount below a shared one was made shared when it was attached.
  Result<void> made_private = sys::MakeMountPrivate(detached->get());
  if (!made_private) {
    const Error error = Explain(made_private.error(), context.get(), mount.target);
    umount2(sys::ProcFdPath(detached->get()).c_str(), MNT_DETACH);
    return error;
  }
  return {};
}

}  // namespace layerstore::mount
