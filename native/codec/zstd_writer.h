// zstd out: one frame with a checksum. One thread at a time.
#pragma once

#include "codec/encoder.h"

namespace layerstore {

// Fault::kNotSupported where this build has no zstd.
Result<std::unique_ptr<Encoder>> OpenZstdWriter(ByteSink& out);

}  // namespace layerstore
