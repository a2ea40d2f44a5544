#include "tree/stack.h"

#include <dirent.h>
#include <fcntl.h>

#include <algorithm>

#include "sys/directory.h"
#include "sys/open.h"
#include "tree/xattr_io.h"

namespace layerstore::tree {
namespace {

constexpr size_t kMaxOpenDirectories = 256;
// One directory in so many on the way down is a mark: a longer way is opened from mark to mark.
constexpr uint32_t kMarkEvery = 64;

bool IsMark(const LayerDir& directory) { return directory.depth % kMarkEvery == 0; }

// Where a lookup in one layer's directory ended because the name is not there.
bool IsMissing(int err) { return err == ENOENT || err == ENOTDIR; }

std::string Join(const std::string& path, const std::string& name) { return path.empty() ? name : path + "/" + name; }

bool LiesIn(std::string_view path, const std::string& directory) {
  return directory.empty() ||
         (path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/'));
}

// Layers are trusted no more than their archives: every component is a real directory below `from`.
Result<UniqueFd> OpenWay(int from, std::string_view way) {
  UniqueFd at;
  while (!way.empty()) {
    size_t size = way.size();
    if (!sys::HaveOpenat2()) {
      size = std::min(way.find('/'), size);
    } else if (size >= PATH_MAX) {
      size = way.rfind('/', PATH_MAX - 1);
    }
    const std::string piece(way.substr(0, size));
    const int base = at.valid() ? at.get() : from;
    Result<UniqueFd> next = sys::HaveOpenat2() ? sys::OpenBeneath(base, piece, O_PATH | O_DIRECTORY, 0,
                                                                  sys::kResolveBeneath | sys::kResolveNoSymlinks)
                                               : sys::OpenAt(base, piece, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (!next) return next.error();
    at = std::move(*next);
    way.remove_prefix(std::min(size + 1, way.size()));
  }
  return at;
}

}  // namespace

std::string_view DirectoryPart(std::string_view path) {
  const size_t slash = path.rfind('/');
  return path.substr(0, slash == std::string_view::npos ? 0 : slash);
}

// Not one destructor inside the other: the way may be thousands of directories long.
LayerDir::~LayerDir() {
  LayerDirRef up = std::move(above);
  while (up != nullptr && up.use_count() == 1) up = std::exchange(up->above, nullptr);
}

// The state of one lookup as it goes down the layers; the rules are overlayfs' (fs/overlayfs/namei.c).
struct Stack::Search {
  std::string name;  // in the next layer; with a leading slash: from the layer's root
  bool is_directory = false;
  bool metacopy = false;  // the last hit was one
  bool stop = false;
  bool whiteout = false;
  bool redirected = false;
  bool from_root = false;  // an absolute redirect was met in the layer searched last
};

Result<std::unique_ptr<Stack>> Stack::Open(const std::vector<std::string>& directories, Whiteouts whiteouts) {
  std::unique_ptr<Stack> stack(new Stack());
  stack->user_ = whiteouts == Whiteouts::kOverlayUser;
  stack->plain_ = whiteouts == Whiteouts::kApply;
  for (const std::string& path : directories) {
    auto root = std::make_shared<LayerDir>();
    root->layer = static_cast<uint32_t>(stack->roots_.size());
    LS_ASSIGN(root->fd, sys::OpenPath(path, O_PATH | O_DIRECTORY));
    if (!stack->plain_) {
      std::string opaque;
      LS_ASSIGN(const bool there, GetXattr(root->fd.get(), {}, stack->opaque_xattr(), opaque));
      root->xattr_whiteouts = there && opaque == "x";
    }
    stack->roots_.push_back(std::move(root));
  }
  return stack;
}

MergedDir Stack::Root(uint32_t first, uint32_t end) const { return {roots_.begin() + first, roots_.begin() + end}; }

LayerDirRef Stack::Directory(LayerDirRef near, std::string_view path) {
  while (!LiesIn(path, near->path)) near = near->above;
  if (path.size() == near->path.size()) return near;
  auto directory = std::make_shared<LayerDir>();
  directory->layer = near->layer;
  directory->path = path;
  const auto way = path.substr(near->path.empty() ? 0 : near->path.size() + 1);
  directory->depth = near->depth + 1 + static_cast<uint32_t>(std::count(way.begin(), way.end(), '/'));
  directory->above = std::move(near);
  return directory;
}

Result<void> Stack::Open(LayerDir& directory, const LayerDir& from) {
  const std::string_view way = std::string_view(directory.path).substr(from.path.empty() ? 0 : from.path.size() + 1);
  LS_ASSIGN(directory.fd, OpenWay(from.fd.get(), way));
  return {};
}

Result<int> Stack::Descriptor(const LayerDirRef& directory) {
  if (directory->fd.valid()) return directory->fd.get();
  std::vector<LayerDirRef> closed = {directory};  // and the marks above it, the last of them below an open directory
  LayerDirRef from = directory->above;
  for (; !from->fd.valid(); from = from->above) {
    if (IsMark(*from)) closed.push_back(from);
  }
  for (; !closed.empty(); closed.pop_back()) {
    LS_TRY(Open(*closed.back(), *from));
    from = closed.back();
    auto& kept = IsMark(*from) ? marks_ : open_;
    kept.push_back(from);
    if (kept.size() <= kMaxOpenDirectories) continue;
    if (const LayerDirRef oldest = kept.front().lock()) oldest->fd.reset();
    kept.pop_front();
  }
  return directory->fd.get();
}

Result<UniqueFd> Stack::OpenFile(const LayerPlace& place) {
  LS_ASSIGN(const int directory, Descriptor(place.directory));
  return sys::OpenAt(directory, place.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
}

Result<std::vector<StackChild>> Stack::List(const MergedDir& directory, uint32_t below) {
  std::vector<StackChild> children;
  for (uint32_t part = 0; part < directory.size() && directory[part]->layer < below; part++) {
    LS_ASSIGN(const int path_fd, Descriptor(directory[part]));
    LS_ASSIGN(const UniqueFd fd, sys::OpenAt(path_fd, ".", O_RDONLY | O_DIRECTORY));
    sys::DirectoryReader reader(fd.get());
    sys::DirectoryEntry entry;
    for (;;) {
      LS_ASSIGN(const bool more, reader.Next(entry));
      if (!more) break;
      children.push_back({std::string(entry.name), part, entry.type});
    }
  }
  std::sort(children.begin(), children.end(), [](const StackChild& a, const StackChild& b) {
    const int order = a.name.compare(b.name);
    return order != 0 ? order < 0 : a.part < b.part;
  });
  const auto same = [](const StackChild& a, const StackChild& b) { return a.name == b.name; };
  children.erase(std::unique(children.begin(), children.end(), same), children.end());
  return children;
}

Result<bool> Stack::IsXattrWhiteout(const LayerDirRef& base, int directory, const std::string& name,
                                    const struct stat& st) {
  if (!base->xattr_whiteouts || !S_ISREG(st.st_mode) || st.st_size != 0) return false;
  std::string value;
  return GetXattr(directory, name, user_ ? "user.overlay.whiteout" : "trusted.overlay.whiteout", value);
}

Result<void> Stack::ReadRedirect(int directory, const std::string& name, const std::string& before,
                                 const std::string& after, Search& search) {
  std::string redirect;
  LS_ASSIGN(const bool there,
            GetXattr(directory, name, user_ ? "user.overlay.redirect" : "trusted.overlay.redirect", redirect));
  if (!there) return {};
  const bool absolute = redirect.starts_with('/');
  // Absolute: components without empty ones; relative: one component.
  bool good = !redirect.empty() && redirect.size() <= kMaxPathBytes && redirect.find('\0') == std::string::npos;
  for (size_t begin = absolute ? 1 : 0; good && begin <= redirect.size();) {
    const size_t slash = std::min(redirect.find('/', begin), redirect.size());
    const std::string part = redirect.substr(begin, slash - begin);
    good = !part.empty() && part != "." && part != ".." && (absolute || slash == redirect.size());
    begin = slash + 1;
  }
  if (!good) return DataError(Fault::kCorrupt, "overlay redirect xattr", name);
  search.name = (absolute ? redirect : before + redirect) + after;
  if (search.name.size() > kMaxPathBytes) return DataError(Fault::kLimit, "path length", name);
  search.redirected = true;
  if (absolute) {
    search.from_root = true;
    // An ancestor on an absolute path may be opaque; the redirect of what lies below it goes on all the same.
    search.stop = false;
  }
  return {};
}

// One component in one layer. True where it is there and is what the lookup wants; then `hit` says what.
Result<bool> Stack::SearchOne(const LayerDirRef& base, const std::string& name, const std::string& before,
                              const std::string& after, bool last, Search& search, StackNode& hit) {
  Result<int> opened = Descriptor(base);
  if (!opened) {
    if (IsMissing(opened.error().err)) return false;
    return opened.error();
  }
  const int directory = *opened;
  struct stat st {};
  if (fstatat(directory, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (IsMissing(errno)) return false;
    return SysError("fstatat", Join(base->path, name));
  }
  const auto found = [&] {
    hit.st = st;
    hit.place = {base, name};
    return true;
  };
  if (plain_) {
    search.is_directory = S_ISDIR(st.st_mode);
    search.stop = !search.is_directory;
    return found();
  }
  bool whiteout = IsWhiteoutDevice(st);
  if (!whiteout) {
    LS_ASSIGN(whiteout, IsXattrWhiteout(base, directory, name, st));
  }
  if (whiteout) {
    search.stop = true;
    search.whiteout = true;
    return false;
  }
  if (last && search.metacopy && !S_ISREG(st.st_mode)) {
    search.stop = true;
    return false;
  }
  std::string value;
  if (!S_ISDIR(st.st_mode)) {
    if (search.is_directory || !last) {
      search.stop = true;
      return false;
    }
    search.metacopy = false;
    if (S_ISREG(st.st_mode) && st.st_size > 0) {
      LS_ASSIGN(search.metacopy,
                GetXattr(directory, name, user_ ? "user.overlay.metacopy" : "trusted.overlay.metacopy", value));
    }
    search.stop = !search.metacopy;
    if (search.metacopy) LS_TRY(ReadRedirect(directory, name, before, after, search));
    return found();
  }
  if (last) search.is_directory = true;
  LS_ASSIGN(const bool marked, GetXattr(directory, name, opaque_xattr(), value));
  if (marked && value == "y") {
    search.stop = true;
    return found();
  }
  hit.hides = marked && value == "x";  // for SearchLayer: the directory holds whiteouts in xattr form
  LS_TRY(ReadRedirect(directory, name, before, after, search));
  return found();
}

// The name of `search` in one layer; hit.kind stays kNone where it is not there.
Result<void> Stack::SearchLayer(const LayerDirRef& base, Search& search, StackNode& hit) {
  const std::string name = search.name;
  LayerDirRef at = base;
  bool last = false;
  for (size_t begin = name.starts_with('/') ? 1 : 0; !last;) {
    const size_t slash = std::min(name.find('/', begin), name.size());
    last = slash == name.size();
    hit.hides = false;
    LS_ASSIGN(const bool there, SearchOne(at, name.substr(begin, slash - begin), name.substr(0, begin),
                                          name.substr(slash), last, search, hit));
    if (!there) return {};
    if (S_ISDIR(hit.st.st_mode)) {
      std::string path = Join(at->path, hit.place.name);
      if (path.size() > kMaxPathBytes) return DataError(Fault::kLimit, "path length", path);
      at = Directory(at, path);
      at->xattr_whiteouts = std::exchange(hit.hides, false);
    }
    begin = slash + 1;
  }
  hit.kind = S_ISDIR(hit.st.st_mode) ? StackNode::Kind::kDirectory : StackNode::Kind::kFile;
  if (hit.is_directory()) hit.parts = {at};
  return {};
}

Result<StackNode> Stack::Lookup(const MergedDir& directory, const std::string& name, uint32_t first_part,
                                uint32_t below) {
  Search search;
  search.name = name;
  StackNode node;
  bool from_root = false;
  bool hides = false;
  bool redirected = false;
  uint32_t next = first_part;  // part of `directory`, or number of a layer once an absolute redirect was met
  while (!search.stop) {
    if (next >= (from_root ? roots_.size() : directory.size())) break;
    const LayerDirRef& base = from_root ? roots_[next] : directory[next];
    next++;
    StackNode hit;
    search.from_root = false;
    LS_TRY(SearchLayer(base, search, hit));
    if (search.from_root) {
      from_root = true;
      next = base->layer + 1;
    }
    // What ends the search in an upper layer hides everything under it.
    if (search.stop && base->layer < below) hides = true;
    if (search.redirected && base->layer < below) redirected = true;
    if (!hit.exists()) continue;
    if (!node.exists()) {
      node = std::move(hit);
      node.metacopy = search.metacopy;
    } else if (node.is_directory()) {
      node.parts.push_back(std::move(hit.parts.front()));
    } else if (!search.metacopy) {
      node.data = std::move(hit.place);
    }
  }
  if (!node.exists() && search.whiteout) node.kind = StackNode::Kind::kWhiteout;
  node.hides = hides;
  node.redirected = redirected;
  return node;
}

}  // namespace layerstore::tree
