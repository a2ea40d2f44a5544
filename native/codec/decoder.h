// Decoder: a ByteSource that gives the decompressed bytes of another one. Plain, gzip (several members, trailing zero
// padding) and zstd (several frames, skippable frames) are told by their first bytes. gzip by ISA-L where it is there,
// else by zlib. One thread at a time; owns no thread.
#pragma once

#include <memory>

#include "sys/stream.h"

namespace layerstore::codec {

enum class Compression : uint8_t { kNone, kGzip, kZstd };

struct DecoderLimits {
  uint64_t max_window = uint64_t{128} << 20;
};

class Decoder : public ByteSource {
 public:
  // The first read of `source` tells the compression. `source` outlives the Decoder.
  static Result<std::unique_ptr<Decoder>> Open(ByteSource& source, const DecoderLimits& limits);
  [[nodiscard]] virtual Compression compression() const = 0;
  // Bytes taken from `source` so far.
  [[nodiscard]] virtual uint64_t bytes_in() const = 0;
};

// "isal" or "zlib"; "yes" or why not.
const char* GzipBackend();
const char* ZstdBackend();

}  // namespace layerstore::codec
