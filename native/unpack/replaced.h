// Replaced: where files go that a later entry of the same archive overwrites or hides. Where there will be a record it
// needs their content, so they are moved into a scratch directory beside the layer's tree, which the destructor
// removes; else they are removed in place, and a process that is killed leaves nothing beside or in the tree. Belongs
// to the applying thread, then to whoever finishes the record; never to two at once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sys/control.h"
#include "sys/result.h"
#include "sys/unique_fd.h"
#include "tree/inodes.h"

namespace layerstore::unpack {

class Replaced {
 public:
  // `directory`: the layer's tree, open as `root`. `keep`: the record will ask for what was taken. Nothing is made
  // before the first Take().
  Replaced(std::string directory, int root, bool keep) : directory_(std::move(directory)), root_(root), keep_(keep) {}
  ~Replaced();
  Replaced(const Replaced&) = delete;
  Replaced& operator=(const Replaced&) = delete;

  // Moves `name` of the directory `parent` away, or removes it. Fails with EXDEV where the file system will not rename
  // it.
  Result<void> Take(int parent, const std::string& name);
  [[nodiscard]] bool used() const { return taken_ > 0; }

  // After the last Take(): reads every file that was moved. `made`: only these are of the archive; null: all are.
  Result<void> Index(const tree::InodeSet* made, uint64_t max_kept_bytes, const CancelToken& cancel);
  // A moved file with this content; -1: there is none.
  [[nodiscard]] Result<UniqueFd> Open(uint64_t size, uint64_t crc) const;

 private:
  struct Known {
    uint64_t size;
    uint64_t crc;
    uint64_t number;
    auto operator<=>(const Known&) const = default;  // NOLINT(modernize-use-nullptr): the generated comparison with 0
  };

  Result<void> MakeScratch();
  Result<void> Move(int parent, const std::string& name);
  Result<void> Flatten(const tree::InodeSet* made, bool keep);

  std::string directory_;
  int root_;
  bool keep_;
  UniqueFd home_;     // the directory that holds the scratch directory
  UniqueFd scratch_;  // holds files named by number
  std::string name_;
  uint64_t taken_ = 0;  // next number in it
  std::vector<Known> known_;
  uint64_t kept_bytes_ = 0;
  uint64_t max_kept_bytes_ = 0;
};

}  // namespace layerstore::unpack
