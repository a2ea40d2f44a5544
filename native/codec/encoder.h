// Encoder: a ByteSink that compresses into another one. One thread at a time; owns no thread.
#pragma once

#include <memory>

#include "codec/decoder.h"
#include "sys/stream.h"

namespace layerstore::codec {

class Encoder : public ByteSink {
 public:
  // For the blobs of layers: the same tar gives the same bytes, however its bytes are split between calls of Write.
  // `out` outlives the Encoder. Fault::kNotSupported where this build has no zstd, and for kNone.
  static Result<std::unique_ptr<Encoder>> Open(Compression form, ByteSink& out);
  // Writes what is held back and the trailer. No Write after it.
  virtual Result<void> Finish() = 0;
};

// kFast is for tar-split files, which are read back here; kSmall is for blobs, which are sent over a network.
enum class GzipEffort : uint8_t { kFast, kSmall };

// gzip, by ISA-L where it is there, else by zlib.
class GzipWriter : public Encoder {
 public:
  static Result<std::unique_ptr<GzipWriter>> Open(ByteSink& out, GzipEffort effort = GzipEffort::kFast);
};

// zstd: one frame with a checksum. Fault::kNotSupported where this build has no zstd.
Result<std::unique_ptr<Encoder>> OpenZstdWriter(ByteSink& out);

}  // namespace layerstore::codec
