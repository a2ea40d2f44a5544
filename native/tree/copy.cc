#include "tree/copy.h"

#include <fcntl.h>
#include <unistd.h>

#include <climits>
#include <utility>

#include "sys/fd_io.h"
#include "sys/open.h"
#include "tree/tree.h"
#include "tree/tree_walk.h"
#include "tree/xattr_io.h"

namespace layerstore::tree {
namespace {

// A file that somebody writes all the time is taken as it is after this many copies: it has no quiet state.
constexpr int kMaxCopies = 8;

bool SameState(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec &&
         a.st_ctim.tv_sec == b.st_ctim.tv_sec && a.st_ctim.tv_nsec == b.st_ctim.tv_nsec;
}

Result<void> CopyRegular(CopySubject& subject, int target, const std::string& name, const std::string& path,
                         const CancelToken& cancel) {
  LS_ASSIGN(const UniqueFd file, sys::OpenAt(target, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  if (subject.data < 0) return {};
  for (int copies = 1;; copies++) {
    struct stat before {};
    struct stat after {};
    if (fstat(subject.data, &before) != 0) return SysError("fstat", path);
    LS_TRY(sys::CopyData(subject.data, file.get(), static_cast<uint64_t>(before.st_size), path, cancel));
    if (fstat(subject.data, &after) != 0) return SysError("fstat", path);
    if (SameState(before, after) || copies == kMaxCopies) {
      struct stat copied {};
      if (fstat(file.get(), &copied) != 0) return SysError("fstat", path);
      if (subject.data_is_own) subject.st = after;
      // A reflink takes what is there at that moment, which may be more than was seen before.
      subject.st.st_size = copied.st_size;
      return {};
    }
    if (ftruncate(file.get(), 0) != 0) return SysError("ftruncate", path);
  }
}

Result<void> MakeNode(CopySubject& subject, int target, const std::string& name, const std::string& path,
                      const CancelToken& cancel) {
  switch (subject.st.st_mode & S_IFMT) {
    case S_IFREG:
      return CopyRegular(subject, target, name, path, cancel);
    case S_IFDIR:
      if (mkdirat(target, name.c_str(), 0700) != 0) return SysError("mkdir", path);
      return {};
    case S_IFLNK: {
      char link[PATH_MAX];
      const ssize_t length = readlinkat(subject.directory, subject.name.c_str(), link, sizeof link - 1);
      if (length < 0) return SysError("readlinkat", path);
      link[length] = 0;
      if (symlinkat(link, target, name.c_str()) != 0) return SysError("symlink", path);
      return {};
    }
    default:
      if (mknodat(target, name.c_str(), (subject.st.st_mode & S_IFMT) | 0600, subject.st.st_rdev) != 0)
        return SysError("mknod", path);
      return {};
  }
}

}  // namespace

Result<TargetTree> TargetTree::Open(const std::string& directory) {
  TargetTree tree;
  LS_ASSIGN(tree.stack_, Stack::Open({directory}, Whiteouts::kApply));
  tree.current_ = tree.stack_->Root(0, 1).front();
  return tree;
}

Result<int> TargetTree::Parent(const std::string& path) {
  current_ = Stack::Directory(current_, DirectoryPart(path));
  return stack_->Descriptor(current_);
}

Result<int> TargetTree::ParentOfLink(const std::string& path) {
  linked_ = Stack::Directory(current_, DirectoryPart(path));
  return stack_->Descriptor(linked_);
}

Result<void> CopyXattrs(int from, const std::string& from_name, int to, const std::string& to_name, bool with_overlay) {
  LS_ASSIGN(const std::vector<Xattr> xattrs, ListXattrs(from, from_name, with_overlay));
  for (const Xattr& xattr : xattrs) LS_TRY(SetXattr(to, to_name, xattr.name, xattr.value));
  return {};
}

Result<void> CopyFile(CopySubject& subject, int target, const std::string& name, const std::string& path,
                      const CancelToken& cancel) {
  LS_TRY(MakeNode(subject, target, name, path, cancel));
  LS_TRY(SetOwnerAndMode(target, name, subject.st));
  LS_TRY(CopyXattrs(subject.directory, subject.name, target, name, subject.overlay_xattrs));
  if (S_ISDIR(subject.st.st_mode)) return {};
  return SetTimes(target, name, subject.st);
}

Result<void> CopyTree(const std::string& source, const std::string& target, const CancelToken& cancel) {
  LS_ASSIGN(TargetTree tree, TargetTree::Open(target));
  LinkTable links;
  const auto visit = [&](const TreeStep& step) -> Result<void> {
    if (step.path.empty()) {
      LS_ASSIGN(const int top, tree.Parent("x"));
      if (step.kind == TreeStep::Kind::kLeave) return SetTimes(top, ".", step.st);
      LS_TRY(SetOwnerAndMode(top, ".", step.st));
      return CopyXattrs(step.directory, {}, top, {}, true);
    }
    LS_ASSIGN(const int parent, tree.Parent(step.path));
    if (step.kind == TreeStep::Kind::kLeave) return SetTimes(parent, step.name, step.st);
    if (const std::string* first = links.FirstPath(step.st, step.path)) {
      // The two names may lie in different directories: both descriptors are needed at once.
      LS_ASSIGN(const UniqueFd here, sys::OpenAt(parent, ".", O_PATH | O_DIRECTORY));
      LS_ASSIGN(const int there, tree.ParentOfLink(*first));
      if (linkat(there, TargetTree::Name(*first).c_str(), here.get(), step.name.c_str(), 0) != 0)
        return SysError("link", *first, step.path);
      return {};
    }
    CopySubject subject;
    subject.st = step.st;
    subject.directory = step.directory;
    subject.name = step.name;
    subject.overlay_xattrs = true;
    UniqueFd data;
    if (S_ISREG(step.st.st_mode) && step.st.st_size > 0) {
      Result<UniqueFd> opened = sys::OpenAt(step.directory, step.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      if (!opened && opened.error().err == ENOENT) return {};
      if (!opened) return opened.error();
      data = std::move(*opened);
      subject.data = data.get();
    }
    return CopyFile(subject, parent, step.name, step.path, cancel);
  };
  return WalkTree(source, visit, cancel);
}

}  // namespace layerstore::tree
