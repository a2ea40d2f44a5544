#include "tree/layer_reader.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <climits>
#include <vector>

#include "sys/open.h"

namespace layerstore::tree {
namespace {

constexpr int kMaxLinks = 40;  // as the kernel

// Each component is opened by its name alone and never followed; links are read and their text put in front of the
// rest.
Result<UniqueFd> WalkInLayer(int root, const std::string& path) {
  std::vector<UniqueFd> above;  // the way back for "..", the current directory last; empty: the root
  std::string rest = path;
  int links = 0;
  while (!rest.empty()) {
    const size_t slash = rest.find('/');
    const std::string part = rest.substr(0, slash);
    rest.erase(0, slash == std::string::npos ? rest.size() : slash + 1);
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (!above.empty()) above.pop_back();
      continue;
    }
    const int at = above.empty() ? root : above.back().get();
    UniqueFd next(openat(at, part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) return SysError("openat", path);
    struct stat st {};
    if (fstat(next.get(), &st) != 0) return SysError("fstat", path);
    if (S_ISDIR(st.st_mode)) {
      above.push_back(std::move(next));
      continue;
    }
    if (!S_ISLNK(st.st_mode) || ++links > kMaxLinks) {
      errno = S_ISLNK(st.st_mode) ? ELOOP : ENOTDIR;
      return SysError("openat", path);
    }
    char target[PATH_MAX];
    const ssize_t length = readlinkat(next.get(), "", target, sizeof target);
    if (length < 0) return SysError("readlinkat", path);
    if (length > 0 && target[0] == '/') above.clear();
    rest.insert(0, 1, '/');
    rest.insert(0, target, static_cast<size_t>(length));
  }
  if (above.empty()) return sys::OpenAt(root, ".", O_PATH | O_DIRECTORY);
  return std::move(above.back());
}

}  // namespace

Result<UniqueFd> OpenInLayer(int root, const std::string& path, bool force_component_walk) {
  if (force_component_walk || !sys::HaveOpenat2() || path.size() >= PATH_MAX) return WalkInLayer(root, path);
  return sys::OpenBeneath(root, path, O_PATH | O_DIRECTORY, 0, sys::kResolveInRoot | sys::kResolveNoMagiclinks);
}

Result<std::unique_ptr<LayerReader>> LayerReader::Open(const std::string& directory) {
  std::unique_ptr<LayerReader> files(new LayerReader());
  LS_ASSIGN(files->root_, sys::OpenPath(directory, O_PATH | O_DIRECTORY));
  LS_ASSIGN(files->stack_, Stack::Open({directory}, Whiteouts::kApply));
  files->near_ = files->stack_->Root(0, 1).front();
  return files;
}

Result<int> LayerReader::OpenParent(std::string_view path) {
  if (linked_.valid() && path == linked_path_) return linked_.get();
  LayerDirRef directory = Stack::Directory(near_, path);
  Result<int> direct = stack_->Descriptor(directory);
  if (direct) {
    near_ = std::move(directory);
    return direct;
  }
  // A link on the way: seldom.
  if (direct.error().err != ELOOP && direct.error().err != ENOTDIR) return direct.error();
  linked_.reset();
  linked_path_ = path;
  LS_ASSIGN(linked_, OpenInLayer(root_.get(), linked_path_));
  return linked_.get();
}

Result<LayerReader::Place> LayerReader::Find(const tarsplit::Entry& entry) {
  if (!tarsplit::CleanEntryName(entry.name, clean_)) {
    return DataError(Fault::kCorrupt, "tar-split name leaves the layer", entry.name, entry.offset);
  }
  Result<int> parent = OpenParent(DirectoryPart(clean_));
  if (!parent) {
    Error error = std::move(parent.error());
    error.path = entry.name;
    if (error.err == ENOENT || error.err == ENOTDIR || error.err == ELOOP) {
      return DataError(Fault::kCorrupt, "its directory is missing", entry.name, entry.offset);
    }
    return error;
  }
  const bool linked = linked_.valid() && *parent == linked_.get();
  return Place{*parent, clean_.substr(clean_.rfind('/') + 1), linked};
}

Result<UniqueFd> LayerReader::OpenRecorded(const tarsplit::Entry& entry) {
  LS_ASSIGN(const Place place, Find(entry));
  // O_NONBLOCK: a FIFO in the file's place must not block; it makes no difference to regular files.
  UniqueFd file(openat(place.directory, place.name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) {
    if (errno == ENOENT) return DataError(Fault::kCorrupt, "the file is missing", entry.name, entry.offset);
    if (errno == ELOOP || errno == ENXIO)
      return DataError(Fault::kCorrupt, "no regular file", entry.name, entry.offset);
    return SysError("open", entry.name);
  }
  struct stat st {};
  if (fstat(file.get(), &st) != 0) return SysError("fstat", entry.name);
  if (!S_ISREG(st.st_mode)) return DataError(Fault::kCorrupt, "no regular file", entry.name, entry.offset);
  if (static_cast<uint64_t>(st.st_size) != entry.size) {
    return DataError(Fault::kCorrupt, "size " + std::to_string(entry.size) + ", found " + std::to_string(st.st_size),
                     entry.name, entry.offset);
  }
  return file;
}

}  // namespace layerstore::tree
