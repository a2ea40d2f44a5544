// zstd in: frames one behind another, skippable ones among them.
#ifdef LS_HAVE_ZSTD
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>
#endif

#include "codec/input.h"

namespace layerstore::codec {

#ifdef LS_HAVE_ZSTD
namespace {

struct FreeContext {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

class ZstdDecoder final : public Decoder {
 public:
  explicit ZstdDecoder(CodecInput input) : input_(std::move(input)), context_(ZSTD_createDCtx()) {}

  Result<void> Start(const DecoderLimits& limits) {
    if (context_ == nullptr) {
      errno = ENOMEM;
      return SysError("ZSTD_createDCtx");
    }
    const ZSTD_bounds bounds = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);
    const uint64_t smallest = uint64_t{1} << bounds.lowerBound;
    const uint64_t largest = uint64_t{1} << bounds.upperBound;
    const uint64_t window = std::clamp(limits.max_window, smallest, largest);
    const size_t code = ZSTD_DCtx_setMaxWindowSize(context_.get(), static_cast<size_t>(window));
    if (ZSTD_isError(code) != 0) return DataError(Fault::kInvalid, "maxWindow");
    return {};
  }

  Result<size_t> Read(std::span<uint8_t> into) override {
    ZSTD_outBuffer out{into.data(), into.size(), 0};
    while (out.pos < out.size) {
      // A full output may have left decoded bytes inside, so the context is asked before more input is read.
      if (input_.available().empty() && !pending_) {
        if (out.pos > 0) break;
        LS_ASSIGN(const bool more, input_.Fill());
        if (!more) {
          if (between_frames_) return size_t{0};
          return DataError(Fault::kBadCompression, "the zstd stream ends inside a frame");
        }
      }
      const std::span<const uint8_t> bytes = input_.available();
      ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
      const size_t before = out.pos;
      const size_t code = ZSTD_decompressStream(context_.get(), &out, &in);
      input_.Consume(in.pos);
      if (ZSTD_isError(code) != 0) return Failure(code);
      between_frames_ = code == 0;
      pending_ = code != 0 && out.pos == out.size;
      if (in.pos == 0 && out.pos == before) pending_ = false;
    }
    return out.pos;
  }
  [[nodiscard]] Compression compression() const override { return Compression::kZstd; }
  [[nodiscard]] uint64_t bytes_in() const override { return input_.taken(); }

 private:
  static Error Failure(size_t code) {
    if (ZSTD_getErrorCode(code) == ZSTD_error_frameParameter_windowTooLarge) {
      return DataError(Fault::kLimit, "maxWindow");
    }
    return DataError(Fault::kBadCompression, ZSTD_getErrorName(code));
  }

  CodecInput input_;
  std::unique_ptr<ZSTD_DCtx, FreeContext> context_;
  bool between_frames_ = false;
  bool pending_ = false;
};

}  // namespace

Result<std::unique_ptr<Decoder>> OpenZstdDecoder(CodecInput input, const DecoderLimits& limits) {
  auto decoder = std::make_unique<ZstdDecoder>(std::move(input));
  LS_TRY(decoder->Start(limits));
  return std::unique_ptr<Decoder>(std::move(decoder));
}

const char* ZstdBackend() { return "yes"; }

#else

Result<std::unique_ptr<Decoder>> OpenZstdDecoder(CodecInput, const DecoderLimits&) {
  return DataError(Fault::kNotSupported, "zstd: this build was made without libzstd (Debian package libzstd-dev)");
}

const char* ZstdBackend() { return "no: built without libzstd"; }

#endif

}  // namespace layerstore::codec
