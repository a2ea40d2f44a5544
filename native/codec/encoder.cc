#include "codec/encoder.h"

namespace layerstore::codec {

Result<std::unique_ptr<Encoder>> Encoder::Open(Compression form, ByteSink& out) {
  switch (form) {
    case Compression::kGzip: {
      LS_ASSIGN(std::unique_ptr<GzipWriter> writer, GzipWriter::Open(out, GzipEffort::kSmall));
      return std::unique_ptr<Encoder>(std::move(writer));
    }
    case Compression::kZstd:
      return OpenZstdWriter(out);
    case Compression::kNone:
      break;
  }
  return DataError(Fault::kInvalid, "no compression to write");
}

}  // namespace layerstore::codec
