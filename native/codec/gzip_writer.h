// GzipWriter: a ByteSink that compresses into another one (level 1: tar-split records and layer blobs). One thread at a
// time.
#pragma once

#include <memory>

#include "sys/stream.h"

namespace layerstore {

class GzipWriter : public ByteSink {
 public:
  static Result<std::unique_ptr<GzipWriter>> Open(ByteSink& out);
  // Writes the trailer. No Write after it.
  virtual Result<void> Finish() = 0;
};

}  // namespace layerstore
