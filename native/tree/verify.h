// VerifyTree: a layer's tree against its tar-split record. Blocks; any thread; leaves no descriptor behind.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hash/sha256.h"
#include "sys/control.h"
#include "tree/entry_metadata.h"
#include "tree/whiteouts.h"

namespace layerstore::tree {

struct TreeProblem {
  std::string path, what, expected, found;
  bool cosmetic = false;
};
struct VerifyRequest {
  std::string tar_split_path;
  std::string directory;
  Whiteouts whiteouts = Whiteouts::kOverlay;
  Privilege privilege = Privilege::kFull;  // of whoever made the tree
  hash::Sha256Digest diff_id{};
  uint64_t bytes_per_second = 0;  // 0: no budget
};
Result<std::vector<TreeProblem>> VerifyTree(const VerifyRequest& request, const CancelToken& cancel);

}  // namespace layerstore::tree
