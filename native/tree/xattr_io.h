// Xattrs, owner, mode and times of one file, told by a directory descriptor and a name; a link is not followed. No
// state; any thread.
#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>
#include <vector>

#include "sys/result.h"

namespace layerstore::tree {

struct Xattr {
  std::string name;
  std::string value;
  friend bool operator==(const Xattr&, const Xattr&) = default;
};

// The value of one xattr of `name` in `directory` (the directory's own where `name` is empty); a link is not followed.
// False where there is none, or the file system has no xattrs.
Result<bool> GetXattr(int directory, const std::string& name, const char* xattr, std::string& value);
// All of a file's xattrs, in byte order of name; overlayfs' own only where asked for.
Result<std::vector<Xattr>> ListXattrs(int directory, const std::string& name, bool with_overlay = false);
Result<void> SetXattr(int directory, const std::string& name, const std::string& xattr, std::string_view value);
// No error where there is none.
Result<void> RemoveXattr(int directory, const std::string& name, const std::string& xattr);
// Names of overlayfs' own xattrs on the file.
Result<std::vector<std::string>> ListOverlayXattrs(int directory, const std::string& name);

// Mode (but of links), owner, times of `st`, in the order in which none undoes another.
Result<void> SetOwnerAndMode(int directory, const std::string& name, const struct stat& st);
Result<void> SetTimes(int directory, const std::string& name, const struct stat& st);

}  // namespace layerstore::tree
