// The tar reader alone: headers, PAX, GNU names, sparse maps. What it accepts must be whole: every byte of the input is
// either raw or data, in order. Seeds: test/data/tar.
#include <algorithm>
#include <cstdlib>

#include "tar/reader.h"

namespace {

using namespace layerstore;

class FuzzInput final : public tar::Input {
 public:
  explicit FuzzInput(std::span<const uint8_t> bytes) : left_(bytes) {}
  Result<std::span<const uint8_t>> Take(size_t max) override {
    const auto bytes = left_.first(std::min(max, left_.size()));
    left_ = left_.subspan(bytes.size());
    return bytes;
  }

 private:
  std::span<const uint8_t> left_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input({data, size});
  tar::Reader reader(input, {1 << 16, {16, 1 << 12}});
  tar::Entry entry;
  std::string seen;
  const auto add = [&](std::span<const uint8_t> bytes) {
    seen.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  while (true) {
    auto step = reader.Next(entry);
    seen += reader.TakeRaw();
    if (!step.ok()) return 0;
    if (*step == tar::Reader::Step::kEnd) break;
    while (reader.data_left() > 0) {
      auto bytes = reader.ReadData(1 << 14);
      if (!bytes.ok()) return 0;
      add(*bytes);
    }
  }
  while (true) {
    auto bytes = reader.ReadTrailing(1 << 14);
    if (!bytes.ok() || bytes->empty()) break;
    add(*bytes);
  }
  if (seen.size() != size || !std::equal(seen.begin(), seen.end(), reinterpret_cast<const char*>(data))) std::abort();
  return 0;
}
