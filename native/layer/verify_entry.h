// One recorded entry of a tar against the inode it made. One thread at a time; borrows what it is given.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "layer/layer_files.h"
#include "layer/record_tar.h"
#include "layer/tree.h"

namespace layerstore {

// EntryNames: all names of a tar, as hashes.
class EntryNames {
 public:
  // `recorded`: the record has a file for the entry.
  void Add(std::string_view name, bool recorded);
  // The path, or something below it, is in the tar.
  [[nodiscard]] bool Knows(std::string_view path) const {
    return known_.contains(Hash(path)) || implied_.contains(Hash(path));
  }
  // An entry whose file in the tree need not be what its header says: the name came again, or a whiteout took it away.
  [[nodiscard]] bool Unsure(std::string_view path) const { return unsure_.contains(Hash(path)); }

 private:
  static uint64_t Hash(std::string_view path) { return std::hash<std::string_view>()(path); }
  std::unordered_set<uint64_t> known_;
  std::unordered_set<uint64_t> implied_;  // parents
  std::unordered_set<uint64_t> unsure_;
};

// "directory", "regular file" …
std::string DescribeType(mode_t mode);

class EntryCheck {
 public:
  EntryCheck(LayerFiles& files, Whiteouts whiteouts, const EntryNames& names, std::unordered_set<uint64_t>& inodes,
             std::vector<TreeProblem>& problems)
      : files_(files), whiteouts_(whiteouts), names_(names), inodes_(inodes), problems_(problems) {}

  // Adds what is wrong to the problems and the inode to the set.
  Result<void> Check(const RecordTar::Item& item);

 private:
  Result<void> Whiteout(const SplitEntry& entry, const std::string& removed);
  Result<void> Opaque(const SplitEntry& entry);
  Result<void> Attributes(const RecordTar::Item& item, const LayerFiles::Place& place, const struct stat& st);
  Result<void> Xattrs(const TarEntry& header, const LayerFiles::Place& place);
  Result<void> HardLink(const TarEntry& header, const struct stat& st);
  void Add(const std::string& path, std::string what, std::string expected, std::string found, bool cosmetic = false) {
    problems_.push_back({path, std::move(what), std::move(expected), std::move(found), cosmetic});
  }

  LayerFiles& files_;
  Whiteouts whiteouts_;
  const EntryNames& names_;
  std::unordered_set<uint64_t>& inodes_;
  std::vector<TreeProblem>& problems_;
};

}  // namespace layerstore
