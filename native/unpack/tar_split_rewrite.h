// The second pass over a record, only where entries of the archive replaced or hid others: what the tree no longer has
// under its name is put into the record itself.
#pragma once

#include <string>

#include "hash/sha256.h"
#include "sys/control.h"
#include "unpack/applier.h"

namespace layerstore::unpack {

// Rewrites the record at `path` in place (a new file beside it, then a rename). Every byte that the new record stands
// for is hashed: kCorrupt where they are not `diff_id`, which would be a mistake of ours.
Result<void> RewriteTarSplit(const std::string& path, const hash::Sha256Digest& diff_id, Applier& applier,
                             bool component_walk, uint64_t max_kept_bytes, const CancelToken& cancel);

}  // namespace layerstore::unpack
