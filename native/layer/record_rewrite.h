// The second pass over a record, only where entries of the archive replaced or hid others: what the tree no longer has
// under its name is put into the record itself.
#pragma once

#include <string>

#include "hash/sha256.h"
#include "layer/applier.h"
#include "sys/cancel.h"

namespace layerstore {

// Rewrites the record at `path` in place (a new file beside it, then a rename). Every byte that the new record stands
// for is hashed: kCorrupt where they are not `diff_id`, which would be a mistake of ours.
Result<void> RewriteRecord(const std::string& path, const Sha256Digest& diff_id, Applier& applier, bool component_walk,
                           uint64_t max_kept_bytes, const CancelToken& cancel);

// Apparent size of every inode in the tree that is no directory, hard links once; `made`: only of these.
Result<uint64_t> TreeSize(int root, const InodeSet* made, const CancelToken& cancel);

}  // namespace layerstore
