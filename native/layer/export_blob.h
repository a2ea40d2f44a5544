// ExportBlob: a layer's exact tar into a sink as a blob, plain or compressed; the tar is verified and the blob hashed
// in the same pass. Runs on the caller's thread and one more for each hash; these have ended when it returns.
#pragma once

#include "codec/decoder.h"
#include "layer/tree.h"

namespace layerstore {

struct BlobSummary {
  TarSummary tar;
  uint64_t bytes = 0;  // of the blob
  Sha256Digest digest{};
};

// `progress.bytes_read` counts the tar's bytes. Fault::kCorrupt where the tar is not what it was; the sink has got a
// part of it by then.
Result<BlobSummary> ExportBlob(const AssembleRequest& request, Compression form, ByteSink& sink, Progress& progress,
                               const CancelToken& cancel);

// Size of the tar that a record describes: the record alone is read.
Result<uint64_t> RecordedSize(const std::string& tar_split_path, const CancelToken& cancel);

}  // namespace layerstore
