// GzipWriter: gzip out, by ISA-L where it is there, else by zlib. One thread at a time.
#pragma once

#include <memory>

#include "codec/encoder.h"

namespace layerstore {

// kFast is for tar-split files, which are read back here; kSmall is for blobs, which are sent over a network.
enum class GzipEffort : uint8_t { kFast, kSmall };

class GzipWriter : public Encoder {
 public:
  static Result<std::unique_ptr<GzipWriter>> Open(ByteSink& out, GzipEffort effort = GzipEffort::kFast);
};

}  // namespace layerstore
