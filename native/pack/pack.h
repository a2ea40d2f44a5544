// From trees to tars: the exact tar of a layer again, plain or as a blob; the tar of a difference; the commit of a
// difference to a layer. Every function blocks, runs one more thread for each hash (ended when it returns), may be
// called from several threads at once for different trees, and leaves no descriptor behind.
#pragma once

#include <cstdint>
#include <string>

#include "codec/decoder.h"
#include "hash/sha256.h"
#include "sys/control.h"
#include "sys/stream.h"
#include "tree/tree.h"

namespace layerstore::pack {

struct TarSummary {
  uint64_t bytes = 0;
  hash::Sha256Digest diff_id{};
};

struct AssembleRequest {
  std::string tar_split_path;  // gzip
  std::string directory;
  hash::Sha256Digest diff_id{};  // Fault::kCorrupt rather than a good end on other bytes
};
// tar-split record + tree -> the registered bytes.
Result<TarSummary> Assemble(const AssembleRequest& request, ByteSink& sink, const CancelToken& cancel);

// docs/on-disk-format.md, "The tar of an RW layer": the same bytes for the same tree.
Result<TarSummary> WriteTreeTar(const tree::DiffRequest& request, ByteSink& sink, const CancelToken& cancel);

struct BlobSummary {
  TarSummary tar;
  uint64_t bytes = 0;  // of the blob
  hash::Sha256Digest digest{};
};

// `progress.bytes_read` counts the tar's bytes. Fault::kCorrupt where the tar is not what it was; the sink has got a
// part of it by then.
Result<BlobSummary> ExportBlob(const AssembleRequest& request, codec::Compression form, ByteSink& sink,
                               Progress& progress, const CancelToken& cancel);

// Size of the tar that a record describes: the record alone is read.
Result<uint64_t> RecordedSize(const std::string& tar_split_path, const CancelToken& cancel);

struct CommitTreeRequest {
  tree::DiffRequest diff;  // its upper.directories[0] is the RW layer's own (already at `directory` where `consume`)
  std::string directory;   // becomes the layer's tree
  bool consume = false;
  std::string tar_split_path;
  // `consume`, where not empty: path of a tar of the whiteouts that the layer does not need, synced before the first of
  // them is removed from `directory`, so that the RW layer can be given back whole. Not created if there are none.
  std::string removed_whiteouts_tar;
};
struct CommittedTree {
  hash::Sha256Digest diff_id{};
  uint64_t tar_size = 0;
  uint64_t size = 0;  // apparent, hard links once
  uint64_t entries = 0;
};
// The changes of an RW layer become a layer: cloned (or taken over), hashed and recorded in one pass. The result is
// what Ingest would give for WriteTreeTar's bytes.
Result<CommittedTree> CommitTree(const CommitTreeRequest& request, Progress& progress, const CancelToken& cancel);

}  // namespace layerstore::pack
