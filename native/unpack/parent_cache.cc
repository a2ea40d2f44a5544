#include "unpack/parent_cache.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <climits>
#include <utility>
#include <vector>

#include "sys/open.h"

namespace layerstore::unpack {
namespace {

constexpr int kDirectory = O_PATH | O_DIRECTORY | O_CLOEXEC;
constexpr int kMaxLinks = 40;  // as the kernel

// Puts the components of `path` on top of `todo`, so that the first is taken first.
void PushComponents(std::string_view path, std::vector<std::string>& todo) {
  size_t end = path.size();
  while (end > 0) {
    const size_t slash = path.rfind('/', end - 1);
    const size_t begin = slash == std::string_view::npos ? 0 : slash + 1;
    if (begin < end) todo.emplace_back(path.substr(begin, end - begin));
    if (slash == std::string_view::npos) break;
    end = slash;
  }
}

}  // namespace

ParentCache::ParentCache(int root, bool walk, Owns owns)
    : root_(root), walk_(walk || !sys::HaveOpenat2()), owns_(std::move(owns)) {}

void ParentCache::Clear() {
  by_path_.clear();
  order_.clear();
}

Result<Parent> ParentCache::Find(std::string_view path) {
  if (const auto found = by_path_.find(path); found != by_path_.end()) {
    order_.splice(order_.begin(), order_, found->second);
  } else {
    Cached cached;
    cached.path = path;
    LS_ASSIGN(cached.fd, Resolve(cached.path, cached.aliased));
    struct stat info;
    if (fstat(cached.fd.get(), &info) != 0) return SysError("fstat", cached.path);
    cached.setgid = (info.st_mode & S_ISGID) != 0;
    cached.inode = info.st_ino;
    if (order_.size() >= kCapacity) {
      by_path_.erase(order_.back().path);
      order_.pop_back();
    }
    order_.push_front(std::move(cached));
    by_path_.emplace(order_.front().path, order_.begin());
  }
  const Cached& front = order_.front();
  return Parent{front.fd.get(), front.aliased, front.setgid, front.inode};
}

Result<UniqueFd> ParentCache::Resolve(const std::string& path, bool& aliased) const {
  const char* text = path.empty() ? "." : path.c_str();
  if (walk_) return Walk(path, aliased);
  const int direct = sys::RawOpenat2(root_, text, kDirectory, 0,
                                     sys::kResolveInRoot | sys::kResolveNoMagiclinks | sys::kResolveNoSymlinks);
  if (direct >= 0) return UniqueFd(direct);
  if (errno != ELOOP) return SysError("openat2", path);
  if (owns_) return Walk(path, aliased);
  aliased = true;
  const int followed = sys::RawOpenat2(root_, text, kDirectory, 0, sys::kResolveInRoot | sys::kResolveNoMagiclinks);
  if (followed >= 0) return UniqueFd(followed);
  return SysError("openat2", path);
}

// Every step opens one component without following it; a link's text is put in its place, ".." goes back to the
// directory that was come from, and the root's parent is the root. Nothing is looked up by more than one name at once.
Result<UniqueFd> ParentCache::Walk(const std::string& path, bool& aliased) const {
  std::vector<std::string> todo;
  PushComponents(path, todo);
  std::vector<UniqueFd> stack;  // the way from the root, without it
  int links = 0;
  size_t link_text = todo.size();  // what lies in `todo` from here on came out of a link
  while (!todo.empty()) {
    const std::string name = std::move(todo.back());
    todo.pop_back();
    const bool of_link = todo.size() >= link_text;
    if (!of_link) link_text = todo.size();
    if (name == ".") continue;
    if (name == "..") {
      if (!stack.empty()) stack.pop_back();
      continue;
    }
    const int at = stack.empty() ? root_ : stack.back().get();
    UniqueFd next(openat(at, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) return SysError("openat", path);
    struct stat info;
    if (fstat(next.get(), &info) != 0) return SysError("fstat", path);
    if (owns_ && (of_link || S_ISLNK(info.st_mode)) && !owns_(info)) {
      errno = of_link ? ENOENT : ENOTDIR;
      return SysError("openat", path);
    }
    if (S_ISLNK(info.st_mode)) {
      aliased = true;
      if (++links > kMaxLinks) {
        errno = ELOOP;
        return SysError("openat", path);
      }
      std::array<char, PATH_MAX> target;
      const ssize_t size = readlinkat(next.get(), "", target.data(), target.size());
      if (size < 0) return SysError("readlinkat", path);
      const std::string_view text(target.data(), static_cast<size_t>(size));
      if (text.starts_with('/')) stack.clear();
      PushComponents(text, todo);
      continue;
    }
    if (!S_ISDIR(info.st_mode)) {
      errno = ENOTDIR;
      return SysError("openat", path);
    }
    stack.push_back(std::move(next));
  }
  if (!stack.empty()) return std::move(stack.back());
  UniqueFd root(openat(root_, ".", kDirectory));
  if (!root.valid()) return SysError("openat", path);
  return root;
}

}  // namespace layerstore::unpack
