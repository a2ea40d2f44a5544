// Packer: writes tar-split records as Go's encoder does, one JSON object a line, into a ByteSink. One thread at a
// time; borrows the sink.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "sys/stream.h"

namespace layerstore::tarsplit {

class Packer {
 public:
  static constexpr size_t kMaxSegment = size_t{1} << 20;

  explicit Packer(ByteSink& sink) : sink_(sink) {}

  // Type 2, in pieces of kMaxSegment.
  Result<void> AddSegment(std::span<const uint8_t> bytes);
  // Type 1. `crc` where the file has content.
  Result<void> AddFile(std::string_view name, uint64_t size, std::optional<uint64_t> crc);

 private:
  Result<void> End();

  ByteSink& sink_;
  std::string line_;
  uint64_t position_ = 0;
};

void AppendBase64(std::span<const uint8_t> bytes, std::string& out);

}  // namespace layerstore::tarsplit
