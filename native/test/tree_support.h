// What the tree tests share: scratch directories, trees made by system calls, overlay mounts, readings of trees by
// brute force.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "test/check.h"
#include "tree/tree.h"

namespace layerstore::test {

class Scratch {
 public:
  Scratch() {
    std::string pattern = (std::getenv("TMPDIR") != nullptr ? std::string(std::getenv("TMPDIR")) : "/var/tmp") +
                          "/layerstore-tree-XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~Scratch() {
    const CancelToken cancel;
    CHECK_OK(tree::RemoveTree(path_, cancel));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::string Dir(const std::string& name) const {
    CHECK(mkdir((*this / name).c_str(), 0755) == 0);
    return *this / name;
  }

 private:
  std::string path_;
};

inline void Put(const std::string& path, std::string_view content, mode_t mode = 0644) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, mode);
  CHECK(fd >= 0);
  CHECK(write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  close(fd);
  CHECK(chmod(path.c_str(), mode) == 0);
}

inline void SetTime(const std::string& path, time_t seconds, long nanoseconds) {
  const struct timespec times[2] = {{seconds, nanoseconds}, {seconds, nanoseconds}};
  CHECK(utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0);
}

inline std::string Get(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// An overlay mount for the life of the object.
class OverlayAt {
 public:
  OverlayAt(const std::string& lowers, const std::string& upper, const std::string& work, const std::string& target,
            const std::string& options = "index=off,redirect_dir=on,metacopy=on")
      : target_(target) {
    const std::string data = options + ",lowerdir=" + lowers + ",upperdir=" + upper + ",workdir=" + work;
    mounted_ = ::mount("overlay", target.c_str(), "overlay", 0, data.c_str()) == 0;
    CHECK(mounted_);
  }
  ~OverlayAt() {
    if (mounted_) CHECK(umount2(target_.c_str(), MNT_DETACH) == 0);
  }
  OverlayAt(const OverlayAt&) = delete;
  OverlayAt& operator=(const OverlayAt&) = delete;

 private:
  std::string target_;
  bool mounted_ = false;
};

// One line an entry: kind, mode, owner, size, link target, device, mtime, xattrs, content. Paths sorted by bytes.
struct ReadOptions {
  bool times = true;
  bool directory_times = true;
};
inline void ReadTreeInto(const std::string& root, const std::string& below, const ReadOptions& options,
                         std::map<std::string, std::string>& out) {
  for (const auto& item : std::filesystem::directory_iterator(root + "/" + below)) {
    const std::string path =
        below.empty() ? item.path().filename().string() : below + "/" + item.path().filename().string();
    const std::string full = root + "/" + path;
    struct stat st {};
    CHECK(lstat(full.c_str(), &st) == 0);
    std::string line = std::to_string(st.st_mode) + " " + std::to_string(st.st_uid) + ":" + std::to_string(st.st_gid);
    // Whiteouts have no times that mean anything.
    const bool whiteout = S_ISCHR(st.st_mode) && st.st_rdev == 0;
    if (options.times && !whiteout && (options.directory_times || !S_ISDIR(st.st_mode))) {
      line += " " + std::to_string(st.st_mtim.tv_sec) + "." + std::to_string(st.st_mtim.tv_nsec);
    }
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) line += " dev " + std::to_string(st.st_rdev);
    if (S_ISLNK(st.st_mode)) line += " -> " + std::filesystem::read_symlink(full).string();
    if (S_ISREG(st.st_mode))
      line += " size " + std::to_string(st.st_size) + " " + std::to_string(std::hash<std::string>()(Get(full)));
    char names[4096];
    const ssize_t length = llistxattr(full.c_str(), names, sizeof names);
    std::map<std::string, std::string> xattrs;
    for (ssize_t at = 0; at < length;) {
      const std::string name = names + at;
      at += static_cast<ssize_t>(name.size()) + 1;
      char value[4096];
      const ssize_t got = lgetxattr(full.c_str(), name.c_str(), value, sizeof value);
      if (name.rfind("trusted.overlay.", 0) != 0 || name == "trusted.overlay.opaque")
        xattrs[name] = std::string(value, static_cast<size_t>(std::max<ssize_t>(got, 0)));
    }
    for (const auto& [name, value] : xattrs) line += " " + name + "=" + value;
    out[path] = line;
    if (S_ISDIR(st.st_mode)) ReadTreeInto(root, path, options, out);
  }
}
inline std::map<std::string, std::string> ReadTree(const std::string& root, const ReadOptions& options = {}) {
  std::map<std::string, std::string> out;
  ReadTreeInto(root, "", options, out);
  return out;
}

inline bool SameTree(const std::map<std::string, std::string>& a, const std::map<std::string, std::string>& b) {
  if (a == b) return true;
  for (const auto& [path, line] : a) {
    const auto at = b.find(path);
    if (at == b.end())
      std::fprintf(stderr, "only in the first: %s %s\n", path.c_str(), line.c_str());
    else if (at->second != line)
      std::fprintf(stderr, "differs: %s\n  %s\n  %s\n", path.c_str(), line.c_str(), at->second.c_str());
  }
  for (const auto& [path, line] : b) {
    if (!a.contains(path)) std::fprintf(stderr, "only in the second: %s %s\n", path.c_str(), line.c_str());
  }
  return false;
}

inline std::string FormatChanges(const std::vector<tree::ChangeRecord>& changes) {
  std::string text;
  for (const tree::ChangeRecord& change : changes) {
    text += change.kind == tree::ChangeKind::kAdd ? "A " : change.kind == tree::ChangeKind::kModify ? "C " : "D ";
    text += change.path + "\n";
  }
  return text;
}

inline void Expect(const std::string& found, const std::string& wanted, int line) {
  if (found != wanted) std::fprintf(stderr, "line %d, found:\n%s\nwanted:\n%s\n", line, found.c_str(), wanted.c_str());
  Report(found == wanted, __FILE__, line, "texts differ");
}

}  // namespace layerstore::test
