// Ingest: one pass from a tar's bytes to a layer's directory: decode -> SHA-256 -> split (CRC-64, tar-split record) ->
// apply. Ingest() runs its pipeline on threads of its own and blocks its caller; every thread has ended when it
// returns.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "codec/decoder.h"
#include "hash/sha256.h"
#include "sys/control.h"
#include "sys/stream.h"
#include "tree/entry_metadata.h"
#include "tree/whiteouts.h"

namespace layerstore::unpack {

// All absent limits are "none"; TypeScript fills in the defaults (src/engine/limits.ts).
struct UnpackLimits {
  static constexpr uint64_t kNone = std::numeric_limits<uint64_t>::max();
  uint64_t max_bytes = kNone;  // of tar, decompressed
  uint64_t max_entries = kNone;
  double max_ratio = std::numeric_limits<double>::infinity();  // counted after 4 GiB of tar
  uint64_t max_path_length = 4096;
  uint64_t max_path_depth = 1024;
  uint64_t max_header_bytes = 1 << 20;
  uint64_t max_xattr_bytes = 1 << 20;
  uint64_t max_xattrs = 1024;
  uint64_t max_link_length = 4095;
  uint64_t max_window = uint64_t{128} << 20;
  uint64_t max_kept_bytes = uint64_t{1} << 30;
  uint64_t min_free_bytes = 0;
};

struct IngestRequest {
  std::string directory = {};  // exists; becomes the layer's tree
  tree::Whiteouts whiteouts = tree::Whiteouts::kOverlay;
  tree::Privilege privilege = tree::Privilege::kFull;
  std::string tar_split_path = {};    // gzip file made 0600 with O_EXCL; empty: no record
  bool hash_blob = false;             // SHA-256 of the source's bytes too
  bool force_component_walk = false;  // tests: as if the kernel had no openat2
  UnpackLimits limits = {};
};

struct IngestResult {
  hash::Sha256Digest diff_id{};
  uint64_t tar_size = 0;
  uint64_t size = 0;  // apparent, hard links once
  uint64_t entries = 0;
  codec::Compression compression = codec::Compression::kNone;
  uint64_t blob_size = 0;
  std::optional<hash::Sha256Digest> blob_digest;
  uint64_t ignored_xattrs = 0;
  uint64_t ignored_owners = 0;
};

Result<IngestResult> Ingest(ByteSource& source, const IngestRequest& request, Progress& progress,
                            const CancelToken& cancel);

struct HashResult {
  hash::Sha256Digest digest{};
  hash::Sha256Digest diff_id{};
  uint64_t size = 0;
  uint64_t tar_size = 0;
  codec::Compression compression = codec::Compression::kNone;
};
// Digests of a file as it is and of what it decompresses to. No limit but the zstd window.
Result<HashResult> HashSource(ByteSource& source, const codec::DecoderLimits& limits, const CancelToken& cancel);

}  // namespace layerstore::unpack
