// Making files of one tree again in another: data by reflink where the file system can, owner, mode, xattrs and times.
// No state; any thread for different targets.
#pragma once

#include <sys/stat.h>

#include <string>

#include "sys/control.h"
#include "tree/stack.h"

namespace layerstore::tree {

// TargetTree: the tree that is being filled; keeps the directory in use open. One thread at a time.
class TargetTree {
 public:
  static Result<TargetTree> Open(const std::string& directory);
  // The directory that `path` is in, lent until the next call. Cheapest for paths in the order of a walk.
  Result<int> Parent(const std::string& path);
  // The same for the first name of a hard link, which may lie anywhere: the walk goes on from where it was.
  Result<int> ParentOfLink(const std::string& path);
  static std::string Name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

 private:
  std::unique_ptr<Stack> stack_;
  LayerDirRef current_;
  LayerDirRef linked_;  // of the last hard link: it is open as long as somebody has it
};

// A file to copy: its attributes, and where it lies. Descriptors are lent.
struct CopySubject {
  struct stat st {};
  int directory = -1;
  std::string name;
  int data = -1;                // of a regular file: opened for reading
  bool overlay_xattrs = false;  // overlayfs' own are copied too
  bool data_is_own = true;      // false: the data is another file's (metacopy), attributes come from `directory`/`name`
};

// Makes `name` in `target` as the subject is. A directory's times are not set: what is made in it would change them. A
// regular file that changed during its copy is copied again; `subject.st` is then what was copied. `path` is for
// errors.
Result<void> CopyFile(CopySubject& subject, int target, const std::string& name, const std::string& path,
                      const CancelToken& cancel);

Result<void> CopyXattrs(int from, const std::string& from_name, int to, const std::string& to_name, bool with_overlay);

}  // namespace layerstore::tree
