// Encoder: a ByteSink that compresses into another one. One thread at a time; owns no thread.
#pragma once

#include <memory>

#include "codec/decoder.h"
#include "sys/stream.h"

namespace layerstore {

class Encoder : public ByteSink {
 public:
  // For the blobs of layers: the same tar gives the same bytes, however its bytes are split between calls of Write.
  // `out` outlives the Encoder. Fault::kNotSupported where this build has no zstd, and for kNone.
  static Result<std::unique_ptr<Encoder>> Open(Compression form, ByteSink& out);
  // Writes what is held back and the trailer. No Write after it.
  virtual Result<void> Finish() = 0;
};

}  // namespace layerstore
