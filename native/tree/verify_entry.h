// One recorded entry of a tar against the inode it made. One thread at a time; borrows what it is given.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tarsplit/tar_view.h"
#include "tree/layer_reader.h"
#include "tree/verify.h"

namespace layerstore::tree {

// EntryNames: all names of a tar, as hashes.
class EntryNames {
 public:
  // In the order of the tar. `recorded`: the record has a file for the entry.
  void Add(std::string_view name, tar::Type type, bool recorded);
  // The path, or something below it, is in the tar.
  [[nodiscard]] bool Knows(std::string_view path) const {
    return known_.contains(Hash(path)) || implied_.contains(Hash(path));
  }
  // The file in the tree need not be what the entry's header says: the name came again, or a later entry removed the
  // file or a directory on the way to it.
  [[nodiscard]] bool Unsure(std::string_view path) const;
  // An entry or a whiteout names the path.
  [[nodiscard]] bool Named(std::string_view path) const { return known_.contains(Hash(path)); }
  // Something below the path is in the tar.
  [[nodiscard]] bool Implied(std::string_view path) const { return implied_.contains(Hash(path)); }

 private:
  static uint64_t Hash(std::string_view path) { return std::hash<std::string_view>()(path); }
  void Name(std::string_view path);
  void Remove(std::string_view path);

  uint64_t added_ = 0;                            // entries
  std::unordered_map<uint64_t, uint64_t> known_;  // and how many entries came before its first one
  std::unordered_set<uint64_t> implied_;          // parents
  std::unordered_set<uint64_t> unsure_;
  // Directories that a whiteout or a file of their name removed, and how many entries came before the last one.
  std::unordered_map<uint64_t, uint64_t> removed_;
};

// "directory", "regular file" …
std::string DescribeType(mode_t mode);

class EntryCheck {
 public:
  EntryCheck(LayerReader& files, Whiteouts whiteouts, Privilege privilege, const EntryNames& names,
             std::unordered_set<uint64_t>& inodes, std::vector<TreeProblem>& problems)
      : files_(files),
        whiteouts_(whiteouts),
        privilege_(privilege),
        names_(names),
        inodes_(inodes),
        problems_(problems) {}

  // Adds what is wrong to the problems and the inode to the set. Entries in the order of the tar: of several that lead
  // to one inode the last one says what it is.
  Result<void> Check(const tarsplit::TarView::Item& item);
  // After the last one.
  void Finish();

 private:
  // What is wrong with an inode, until a later entry for it says otherwise. A hard link sets attributes anew.
  struct Doubts {
    uint64_t order = 0;  // of the first entry that raised one, so that they are told in the archive's order
    std::vector<TreeProblem> nature;  // type, size, link target, device
    std::vector<TreeProblem> attributes;
  };

  bool Seen(uint64_t inode, bool hard_link);
  void NoteParents(const std::string& clean);
  [[nodiscard]] bool DirectoryReplaced(const std::string& clean, const Result<LayerReader::Place>& place) const;
  Result<void> Whiteout(const tarsplit::Entry& entry, const std::string& removed);
  Result<void> Opaque(const tarsplit::Entry& entry);
  Result<void> Nature(const tarsplit::TarView::Item& item, const LayerReader::Place& place, const struct stat& st,
                      Doubts& doubts);
  Result<void> Attributes(const tar::Entry& header, const LayerReader::Place& place, const struct stat& st, bool seen,
                          Doubts& doubts);
  Result<void> Xattrs(const tar::Entry& header, const LayerReader::Place& place, const struct stat& st, bool seen,
                      Doubts& doubts);
  [[nodiscard]] bool IsStandIn(const tar::Entry& header, const struct stat& st) const;
  void LostLink(const tar::Entry& header, const std::string& clean);
  Result<void> HardLink(const tar::Entry& header, const struct stat& st);
  void Add(const std::string& path, std::string what, std::string expected, std::string found, bool cosmetic = false) {
    problems_.push_back({path, std::move(what), std::move(expected), std::move(found), cosmetic});
  }

  LayerReader& files_;
  Whiteouts whiteouts_;
  Privilege privilege_;
  const EntryNames& names_;
  std::unordered_set<uint64_t>& inodes_;
  std::vector<TreeProblem>& problems_;
  std::map<uint64_t, Doubts> doubts_;  // by inode
  uint64_t next_order_ = 0;
  // The inodes that names had when hard links were made, of names that have come again since.
  std::map<std::string, uint64_t> linked_;
};

}  // namespace layerstore::tree
