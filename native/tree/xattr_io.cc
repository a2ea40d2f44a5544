#include "tree/xattr_io.h"

#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>

#include "tree/xattr_policy.h"

namespace layerstore::tree {
namespace {

// A path for the l*xattr calls: they know no directory descriptors. The last component is not followed; where the
// file is the directory itself, the link of /proc must be, hence the "/.".
std::string XattrPath(int directory, const std::string& name) {
  return "/proc/self/fd/" + std::to_string(directory) + (name.empty() ? "/." : "/" + name);
}

// Names, each with its zero byte. Empty where the file system has no xattrs.
Result<std::string> XattrNames(const std::string& path, const std::string& name) {
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

}  // namespace

Result<bool> GetXattr(int directory, const std::string& name, const char* xattr, std::string& value) {
  return GetValue(XattrPath(directory, name), name, xattr, value);
}

Result<std::vector<Xattr>> ListXattrs(int directory, const std::string& name, bool with_overlay) {
  const std::string path = XattrPath(directory, name);
  LS_ASSIGN(const std::string list, XattrNames(path, name));
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
  LS_ASSIGN(const std::string list, XattrNames(XattrPath(directory, name), name));
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

}  // namespace layerstore::tree
