// Replaced: where files go that a later entry of the same archive overwrites or hides. Their content is needed for the
// record, so they are moved into a scratch directory beside the layer's tree, which the destructor removes. Belongs to
// the applying thread, then to whoever finishes the record; never to two at once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "layer/inode_set.h"
#include "sys/cancel.h"
#include "sys/result.h"
#include "sys/unique_fd.h"

namespace layerstore {

class Replaced {
 public:
  // `directory`: the layer's tree, open as `root`. Nothing is made before the first Take().
  Replaced(std::string directory, int root) : directory_(std::move(directory)), root_(root) {}
  ~Replaced();
  Replaced(const Replaced&) = delete;
  Replaced& operator=(const Replaced&) = delete;

  // Moves `name` of the directory `parent` away. Fails with EXDEV where the file system will not rename it.
  Result<void> Take(int parent, const std::string& name);
  [[nodiscard]] bool used() const { return taken_ > 0; }

  // After the last Take(): reads every file that was moved. `made`: only these are of the archive; null: all are.
  Result<void> Index(const InodeSet* made, uint64_t max_kept_bytes, const CancelToken& cancel);
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
  Result<void> Flatten(const InodeSet* made, bool keep);

  std::string directory_;
  int root_;
  UniqueFd home_;     // the directory that holds the scratch directory
  UniqueFd scratch_;  // holds files named by number
  std::string name_;
  uint64_t taken_ = 0;  // next number
  std::vector<Known> known_;
  uint64_t kept_bytes_ = 0;
  uint64_t max_kept_bytes_ = 0;
};

}  // namespace layerstore
