// Inodes that a walk or an ingest has met. One thread at a time.
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>

namespace layerstore::tree {

// InodeSet: inode numbers that one ingest made, kept small whatever the archive: file systems number new inodes close
// together, so a page of 256 neighbours costs about 72 bytes (ten million of them some 3 MiB, where a set of numbers
// would take 400).
class InodeSet {
 public:
  // True: it was not there.
  bool insert(uint64_t inode) {
    uint64_t& word = pages_[inode / kPageBits][inode % kPageBits / 64];
    const uint64_t bit = uint64_t{1} << (inode % 64);
    if ((word & bit) != 0) return false;
    word |= bit;
    size_++;
    return true;
  }
  [[nodiscard]] bool contains(uint64_t inode) const {
    const auto found = pages_.find(inode / kPageBits);
    if (found == pages_.end()) return false;
    return (found->second[inode % kPageBits / 64] >> (inode % 64) & 1) != 0;
  }
  // True: it was there. An empty page stays: its neighbours are likely to come.
  bool erase(uint64_t inode) {
    const auto found = pages_.find(inode / kPageBits);
    if (found == pages_.end()) return false;
    uint64_t& word = found->second[inode % kPageBits / 64];
    const uint64_t bit = uint64_t{1} << (inode % 64);
    if ((word & bit) == 0) return false;
    word &= ~bit;
    size_--;
    return true;
  }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  static constexpr uint64_t kPageBits = 256;
  std::unordered_map<uint64_t, std::array<uint64_t, kPageBits / 64>> pages_;
  size_t size_ = 0;
};

// LinkTable: the first path of each inode that has more than one link.
class LinkTable {
 public:
  // The path given with the inode's first name; null where this is the first, or the only one.
  const std::string* FirstPath(const struct stat& st, const std::string& path) {
    if (st.st_nlink < 2 || S_ISDIR(st.st_mode)) return nullptr;
    const auto [at, added] = paths_.try_emplace({st.st_dev, st.st_ino}, path);
    return added ? nullptr : &at->second;
  }

 private:
  struct Inode {
    uint64_t device, number;
    friend bool operator==(const Inode&, const Inode&) = default;
  };
  struct Hash {
    size_t operator()(const Inode& inode) const { return inode.number * 0x9E3779B97F4A7C15U ^ inode.device; }
  };
  std::unordered_map<Inode, std::string, Hash> paths_;
};

}  // namespace layerstore::tree
