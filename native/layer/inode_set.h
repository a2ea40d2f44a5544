// InodeSet: inode numbers that one ingest made, kept small whatever the archive: file systems number new inodes close
// together, so a page of 256 neighbours costs about 72 bytes (ten million of them some 3 MiB, where a set of numbers
// would take 400). One thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

namespace layerstore {

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

}  // namespace layerstore
