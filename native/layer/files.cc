#include "layer/files.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "layer/xattr_policy.h"

namespace layerstore {
namespace {

constexpr size_t kCopyBytes = size_t{1} << 20;
constexpr uint64_t kCopyRange = uint64_t{64} << 20;  // cancellation is tested between two ranges

// A path for the l*xattr calls: they know no directory descriptors. The last component is not followed; where the
// file is the directory itself, the link of /proc must be, hence the "/.".
std::string XattrPath(int directory, const std::string& name) {
  return "/proc/self/fd/" + std::to_string(directory) + (name.empty() ? "/." : "/" + name);
}

// Names, each with its zero byte. Empty where the file system has no xattrs.
Result<std::string> ListNames(const std::string& path, const std::string& name) {
  std::string list(512, '\0');
  for (;;) {
    const ssize_t got = llistxattr(path.c_str(), list.data(), list.size());
    if (got >= 0) {
      list.resize(static_cast<size_t>(got));
      return list;
    }
    if (errno == ENOTSUP) return std::string();
    if (errno != ERANGE) return SysError("llistxattr", name);
    list.resize(list.size() * 4);
  }
}

Result<bool> GetValue(const std::string& path, const std::string& name, const char* xattr, std::string& value) {
  value.resize(std::max<size_t>(value.capacity(), 256));
  for (;;) {
    const ssize_t got = lgetxattr(path.c_str(), xattr, value.data(), value.size());
    if (got >= 0) {
      value.resize(static_cast<size_t>(got));
      return true;
    }
    if (errno == ENODATA || errno == ENOTSUP) {
      value.clear();
      return false;
    }
    if (errno != ERANGE) return SysError("lgetxattr", name);
    value.resize(value.size() * 4);
  }
}

template <typename Each>
Result<void> ForEachName(const std::string& list, Each each) {
  for (size_t at = 0; at < list.size();) {
    const char* name = list.c_str() + at;
    at += std::char_traits<char>::length(name) + 1;
    LS_TRY(each(name));
  }
  return {};
}

Result<void> CopyRange(int from, int to, uint64_t begin, uint64_t end, const std::string& path,
                       const CancelToken& cancel) {
  auto in = static_cast<loff_t>(begin);
  auto out = static_cast<loff_t>(begin);
  bool by_kernel = true;
  std::unique_ptr<uint8_t[]> buffer;
  while (static_cast<uint64_t>(in) < end) {
    if (cancel.cancelled()) return Cancelled();
    const uint64_t left = end - static_cast<uint64_t>(in);
    if (by_kernel) {
      const ssize_t got = copy_file_range(from, &in, to, &out, static_cast<size_t>(std::min(left, kCopyRange)), 0);
      if (got > 0) continue;
      if (got == 0) return {};  // the file became shorter; whoever copies looks at it again
      if (errno == EINTR) continue;
      if (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP && errno != EBADF) {
        return SysError("copy_file_range", path);
      }
      by_kernel = false;
      buffer = std::make_unique_for_overwrite<uint8_t[]>(kCopyBytes);
    }
    const ssize_t got = pread(from, buffer.get(), static_cast<size_t>(std::min<uint64_t>(left, kCopyBytes)), in);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SysError("read", path);
    if (got == 0) return {};
    for (ssize_t written = 0; written < got;) {
      const ssize_t put = pwrite(to, buffer.get() + written, static_cast<size_t>(got - written), out);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return SysError("write", path);
      written += put;
      out += put;
    }
    in += got;
  }
  return {};
}

}  // namespace

Result<size_t> ReadFull(int fd, std::span<uint8_t> into, const std::string& path) {
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t got = read(fd, into.data() + done, into.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SysError("read", path);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Result<bool> GetXattr(int directory, const std::string& name, const char* xattr, std::string& value) {
  return GetValue(XattrPath(directory, name), name, xattr, value);
}

Result<std::vector<Xattr>> ListXattrs(int directory, const std::string& name, bool with_overlay) {
  const std::string path = XattrPath(directory, name);
  LS_ASSIGN(const std::string list, ListNames(path, name));
  std::vector<Xattr> xattrs;
  LS_TRY(ForEachName(list, [&](const char* xattr) -> Result<void> {
    if (!with_overlay && IsOverlayXattr(xattr)) return {};
    std::string value;
    LS_ASSIGN(const bool there, GetValue(path, name, xattr, value));
    if (there) xattrs.push_back({xattr, std::move(value)});
    return {};
  }));
  std::sort(xattrs.begin(), xattrs.end(), [](const Xattr& a, const Xattr& b) { return a.name < b.name; });
  return xattrs;
}

Result<std::vector<std::string>> ListOverlayXattrs(int directory, const std::string& name) {
  LS_ASSIGN(const std::string list, ListNames(XattrPath(directory, name), name));
  std::vector<std::string> names;
  LS_TRY(ForEachName(list, [&](const char* xattr) -> Result<void> {
    if (IsOverlayXattr(xattr)) names.emplace_back(xattr);
    return {};
  }));
  return names;
}

Result<void> SetXattr(int directory, const std::string& name, const std::string& xattr, std::string_view value) {
  if (lsetxattr(XattrPath(directory, name).c_str(), xattr.c_str(), value.data(), value.size(), 0) == 0) return {};
  Error error = SysError("lsetxattr", name);
  error.detail = xattr;
  return error;
}

Result<void> RemoveXattr(int directory, const std::string& name, const std::string& xattr) {
  if (lremovexattr(XattrPath(directory, name).c_str(), xattr.c_str()) == 0 || errno == ENODATA) return {};
  return SysError("lremovexattr", name);
}

Result<void> SetOwnerAndMode(int directory, const std::string& name, const struct stat& st) {
  if (fchownat(directory, name.c_str(), st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) != 0)
    return SysError("lchown", name);
  // A change of owner takes setuid bits away, so the mode comes second.
  if (!S_ISLNK(st.st_mode) && fchmodat(directory, name.c_str(), st.st_mode & 07777, 0) != 0)
    return SysError("chmod", name);
  return {};
}

Result<void> SetTimes(int directory, const std::string& name, const struct stat& st) {
  const struct timespec times[2] = {st.st_atim, st.st_mtim};
  if (utimensat(directory, name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) return SysError("utimensat", name);
  return {};
}

Result<void> CopyData(int from, int to, uint64_t size, const std::string& path, const CancelToken& cancel) {
  if (size == 0) return {};
  if (ioctl(to, FICLONE, from) == 0) return {};
  if (ftruncate(to, static_cast<off_t>(size)) != 0) return SysError("ftruncate", path);
  for (uint64_t at = 0; at < size;) {
    const off_t data = lseek(from, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // a hole up to the end
    // File systems without SEEK_DATA: all of it is data.
    const uint64_t begin = data < 0 ? at : static_cast<uint64_t>(data);
    const off_t hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
    const uint64_t end = hole < 0 ? size : std::min(size, static_cast<uint64_t>(hole));
    if (begin >= end) break;
    LS_TRY(CopyRange(from, to, begin, end, path, cancel));
    at = end;
  }
  return {};
}

}  // namespace layerstore
