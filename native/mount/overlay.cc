#include "mount/overlay.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <array>
#include <string_view>

#include "mount/overlay_internal.h"
#include "mount/probe.h"
#include "sys/mount_api.h"
#include "sys/open.h"

namespace layerstore::mount {
namespace {

struct AttributeName {
  std::string_view name;
  uint64_t attribute;
  unsigned long classic;
};
constexpr std::array<AttributeName, 6> kAttributes{{
    {"ro", sys::kMountAttrReadOnly, MS_RDONLY},
    {"nosuid", sys::kMountAttrNoSuid, MS_NOSUID},
    {"nodev", sys::kMountAttrNoDev, MS_NODEV},
    {"noexec", sys::kMountAttrNoExec, MS_NOEXEC},
    {"noatime", sys::kMountAttrNoAtime, MS_NOATIME},
    {"nodiratime", sys::kMountAttrNoDirAtime, MS_NODIRATIME},
}};

// Longest tail shown in the mount table: fsconfig takes strings of at most 255 bytes, the prefix included.
constexpr size_t kMaxTail = 160;

}  // namespace

SplitOptions SplitMountOptions(const std::vector<std::string>& options, bool read_only) {
  SplitOptions split;
  if (read_only) {
    split.attributes |= sys::kMountAttrReadOnly;
    split.classic_flags |= MS_RDONLY;
  }
  for (const std::string& option : options) {
    bool found = false;
    for (const AttributeName& known : kAttributes) {
      if (option != known.name) continue;
      split.attributes |= known.attribute;
      split.classic_flags |= known.classic;
      found = true;
    }
    if (!found && !option.empty()) split.overlay.push_back(option);
  }
  return split;
}

std::string Anchor::Text(const std::string& prefix) const {
  std::string text = prefix + std::to_string(fd.get());
  if (!tail.empty()) text += '/' + tail;
  return text;
}

Result<Anchor> AnchorDirectory(const std::string& path) {
  std::string_view view = path;
  while (view.size() > 1 && view.back() == '/') view.remove_suffix(1);
  const size_t last = view.rfind('/');
  const size_t before =
      last == 0 || last == std::string_view::npos ? std::string_view::npos : view.rfind('/', last - 1);
  if (before != std::string_view::npos) {
    const std::string_view tail = view.substr(before + 1);
    // Characters that mean something in an option string are told by the descriptor alone.
    if (tail.size() <= kMaxTail && tail.find_first_of(",:\\\"") == std::string_view::npos) {
      LS_ASSIGN(UniqueFd fd, sys::OpenPath(std::string(view.substr(0, before + 1)), O_PATH | O_DIRECTORY));
      return Anchor{std::move(fd), std::string(tail)};
    }
  }
  LS_ASSIGN(UniqueFd fd, sys::OpenPath(path, O_PATH | O_DIRECTORY));
  return Anchor{std::move(fd), {}};
}

Result<void> RequireWritable(int fd, const OverlayMount& mount, const SplitOptions& options) {
  if (mount.upper.empty() || (options.classic_flags & MS_RDONLY) != 0) return {};
  struct statvfs info;
  if (fstatvfs(fd, &info) != 0) return SysError("fstatvfs", mount.target);
  if ((info.f_flag & ST_RDONLY) == 0) return {};
  // The numbers are those of the upper directory's file system.
  const bool full = info.f_bavail == 0 || (info.f_files > 0 && info.f_favail == 0);
  errno = full ? ENOSPC : EROFS;
  Error error = SysError("mount", mount.work);
  error.detail = "overlayfs could not make its work directory and mounted read-only";
  return error;
}

Result<MountTier> MountOverlay(const OverlayMount& mount) {
  // The tier is chosen by what the kernel can do, asked before and apart from this mount: so a failure of the mount
  // itself is always the one that is reported.
  const MountTier tier = mount.tier == MountTier::kAuto ? BestMountTier() : mount.tier;
  switch (tier) {
    case MountTier::kFd:
      LS_TRY(MountWithContext(mount, true));
      break;
    case MountTier::kLowerdirPlus:
      LS_TRY(MountWithContext(mount, false));
      break;
    case MountTier::kAuto:
    case MountTier::kClassic:
      LS_TRY(MountClassic(mount));
      break;
  }
  return tier;
}

}  // namespace layerstore::mount
