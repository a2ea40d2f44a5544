// Records of tar-split come from disk: any bytes give entries or an error.
#include <algorithm>

#include "tarsplit/reader.h"

namespace {

class FuzzSource final : public layerstore::ByteSource {
 public:
  explicit FuzzSource(std::span<const uint8_t> bytes) : left_(bytes) {}
  layerstore::Result<size_t> Read(std::span<uint8_t> into) override {
    const size_t count = std::min(into.size(), left_.size());
    std::copy_n(left_.begin(), count, into.begin());
    left_ = left_.subspan(count);
    return count;
  }

 private:
  std::span<const uint8_t> left_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzSource source({data, size});
  layerstore::tarsplit::Reader reader(source);
  layerstore::tarsplit::Entry entry;
  while (true) {
    auto more = reader.Next(entry);
    if (!more.ok() || !*more) return 0;
  }
}
