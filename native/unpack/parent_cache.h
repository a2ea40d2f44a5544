// ParentCache: descriptors of the directories that entries are made in, found below the layer's root and never outside
// it, whatever symbolic links the archive made. Belongs to the one thread that changes the tree; borrows the root.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "sys/result.h"
#include "sys/unique_fd.h"

namespace layerstore::unpack {

struct Parent {
  int fd = -1;           // O_PATH, owned by the cache, valid until the next call on it
  bool aliased = false;  // the path goes through a symbolic link
  bool setgid = false;   // what is made in it gets its group
  uint64_t inode = 0;
};

class ParentCache {
 public:
  // Whether a link or directory belongs to the layer. Links of others are no way to anywhere (ENOTDIR), and the layer's
  // own links lead to its own directories only (ENOENT): as in a tree in which nothing else lies.
  using Owns = std::function<bool(const struct stat&)>;

  // `root` outlives the cache. `walk`: component by component, as on a kernel without openat2. `owns`: empty where
  // nothing but the layer lies in the tree.
  ParentCache(int root, bool walk, Owns owns);

  // The directory at `path` (cleaned, empty: the root). Fails with the errno of the lookup: ENOENT, ENOTDIR, ELOOP, …
  Result<Parent> Find(std::string_view path);
  // After anything that could give a path another meaning: replacement, removal, a directory's new mode.
  void Clear();

 private:
  struct Cached {
    std::string path;
    UniqueFd fd;
    bool aliased = false;
    bool setgid = false;
    uint64_t inode = 0;
  };
  using Order = std::list<Cached>;
  static constexpr size_t kCapacity = 64;

  Result<UniqueFd> Resolve(const std::string& path, bool& aliased) const;
  Result<UniqueFd> Walk(const std::string& path, bool& aliased) const;

  int root_;
  bool walk_;
  Owns owns_;
  Order order_;                                                    // last used first
  std::unordered_map<std::string_view, Order::iterator> by_path_;  // keys lie in order_
};

}  // namespace layerstore::unpack
