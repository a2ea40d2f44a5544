#include "codec/encoder.h"

#ifdef LS_HAVE_ZSTD
#include <zstd.h>
#endif

#include <vector>

namespace layerstore::codec {

#ifdef LS_HAVE_ZSTD
namespace {

// zstd's own default.
constexpr int kLevel = 3;

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

class ZstdWriter final : public Encoder {
 public:
  explicit ZstdWriter(ByteSink& out) : out_(out), context_(ZSTD_createCCtx()), buffer_(ZSTD_CStreamOutSize()) {}

  Result<void> Start() {
    if (context_ == nullptr) {
      errno = ENOMEM;
      return SysError("ZSTD_createCCtx");
    }
    LS_TRY(Set(ZSTD_c_compressionLevel, kLevel));
    return Set(ZSTD_c_checksumFlag, 1);
  }

  Result<void> Write(std::span<const uint8_t> bytes) override {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    while (in.pos < in.size) LS_TRY(Step(in, ZSTD_e_continue));
    return {};
  }

  Result<void> Finish() override {
    ZSTD_inBuffer in{nullptr, 0, 0};
    for (;;) {
      LS_ASSIGN(const size_t left, Step(in, ZSTD_e_end));
      if (left == 0) return {};
    }
  }

 private:
  Result<void> Set(ZSTD_cParameter parameter, int value) {
    if (ZSTD_isError(ZSTD_CCtx_setParameter(context_.get(), parameter, value)) == 0) return {};
    return DataError(Fault::kInvalid, "ZSTD_CCtx_setParameter");
  }

  // What is left to flush.
  Result<size_t> Step(ZSTD_inBuffer& in, ZSTD_EndDirective directive) {
    ZSTD_outBuffer out{buffer_.data(), buffer_.size(), 0};
    const size_t left = ZSTD_compressStream2(context_.get(), &out, &in, directive);
    if (ZSTD_isError(left) != 0) return DataError(Fault::kInvalid, ZSTD_getErrorName(left));
    if (out.pos > 0) LS_TRY(out_.Write(std::span(buffer_).first(out.pos)));
    return left;
  }

  ByteSink& out_;
  std::unique_ptr<ZSTD_CCtx, FreeContext> context_;
  std::vector<uint8_t> buffer_;
};

}  // namespace

Result<std::unique_ptr<Encoder>> OpenZstdWriter(ByteSink& out) {
  auto writer = std::make_unique<ZstdWriter>(out);
  LS_TRY(writer->Start());
  return std::unique_ptr<Encoder>(std::move(writer));
}

#else

Result<std::unique_ptr<Encoder>> OpenZstdWriter(ByteSink&) {
  return DataError(Fault::kNotSupported, "this build of the addon has no zstd");
}

#endif

}  // namespace layerstore::codec
