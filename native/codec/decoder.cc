#include "codec/decoder.h"

#include <array>

#include "codec/input.h"

namespace layerstore::codec {
namespace {

// Enough to tell every format; what follows is read straight into the caller's memory where nothing is to be decoded.
constexpr size_t kSniffBytes = 512;

class PlainDecoder final : public Decoder {
 public:
  explicit PlainDecoder(CodecInput input) : input_(std::move(input)) {}

  Result<size_t> Read(std::span<uint8_t> into) override {
    if (into.empty()) return size_t{0};
    const std::span<const uint8_t> first = input_.available();
    if (!first.empty()) {
      const size_t count = std::min(first.size(), into.size());
      std::memcpy(into.data(), first.data(), count);
      input_.Consume(count);
      return count;
    }
    if (input_.ended()) return size_t{0};
    LS_ASSIGN(const size_t count, input_.source().Read(into));
    input_.Note(count);
    return count;
  }
  [[nodiscard]] std::optional<uint64_t> TotalBytes() const override { return total_; }
  [[nodiscard]] Compression compression() const override { return Compression::kNone; }
  [[nodiscard]] uint64_t bytes_in() const override { return input_.taken(); }

 private:
  CodecInput input_;
  std::optional<uint64_t> total_ = input_.source().TotalBytes();
};

Compression Sniff(std::span<const uint8_t> bytes) {
  static constexpr std::array<uint8_t, 3> kGzip = {0x1F, 0x8B, 0x08};
  static constexpr std::array<uint8_t, 4> kZstd = {0x28, 0xB5, 0x2F, 0xFD};
  static constexpr std::array<uint8_t, 3> kSkippableTail = {0x2A, 0x4D, 0x18};
  if (bytes.size() >= 3 && std::equal(kGzip.begin(), kGzip.end(), bytes.begin())) return Compression::kGzip;
  if (bytes.size() < 4) return Compression::kNone;
  if (std::equal(kZstd.begin(), kZstd.end(), bytes.begin())) return Compression::kZstd;
  const bool skippable =
      (bytes[0] & 0xF0) == 0x50 && std::equal(kSkippableTail.begin(), kSkippableTail.end(), bytes.begin() + 1);
  return skippable ? Compression::kZstd : Compression::kNone;
}

}  // namespace

Result<std::unique_ptr<Decoder>> Decoder::Open(ByteSource& source, const DecoderLimits& limits) {
  CodecInput input(source, kSniffBytes);
  while (input.available().size() < 4) {
    LS_ASSIGN(const bool more, input.Fill());
    if (!more) break;
  }
  switch (Sniff(input.available())) {
    case Compression::kGzip:
      input.Grow(kCodecInputBytes);
      return OpenGzipDecoder(std::move(input));
    case Compression::kZstd:
      input.Grow(kCodecInputBytes);
      return OpenZstdDecoder(std::move(input), limits);
    case Compression::kNone:
      break;
  }
  return std::unique_ptr<Decoder>(std::make_unique<PlainDecoder>(std::move(input)));
}

}  // namespace layerstore::codec
