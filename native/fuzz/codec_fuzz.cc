// gzip and zstd in, whatever the input's first bytes make of it; output bounded, so that a bomb is no finding.
#include <algorithm>
#include <array>

#include "codec/decoder.h"

namespace {

class FuzzSource final : public layerstore::ByteSource {
 public:
  FuzzSource(std::span<const uint8_t> bytes, size_t step) : left_(bytes), step_(step) {}
  layerstore::Result<size_t> Read(std::span<uint8_t> into) override {
    const size_t count = std::min({into.size(), step_, left_.size()});
    std::copy_n(left_.begin(), count, into.begin());
    left_ = left_.subspan(count);
    return count;
  }

 private:
  std::span<const uint8_t> left_;
  size_t step_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzSource source({data, size}, size % 7 == 0 ? 3 : 65536);
  auto decoder = layerstore::codec::Decoder::Open(source, {1 << 20});
  if (!decoder.ok()) return 0;
  std::array<uint8_t, 4096> buffer;
  for (size_t total = 0; total < (size_t{4} << 20);) {
    auto count = (*decoder)->Read(buffer);
    if (!count.ok() || *count == 0) break;
    total += *count;
  }
  return 0;
}
