// ByteSource and ByteSink: blocking streams. The other end is a descriptor, or JavaScript through the binding's bounded
// queues. One thread at a time uses an instance.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "sys/result.h"

namespace layerstore {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Reads at most into.size() bytes; 0 is the end. Blocks.
  virtual Result<size_t> Read(std::span<uint8_t> into) = 0;
  // The number of bytes, where it is known before they are read.
  [[nodiscard]] virtual std::optional<uint64_t> TotalBytes() const { return std::nullopt; }
  // The descriptor behind it, or -1: for posix_fadvise and large reads.
  [[nodiscard]] virtual int fd() const { return -1; }
};

class ByteSink {
 public:
  virtual ~ByteSink() = default;
  // Takes all of `bytes`. Blocks while there is no room.
  virtual Result<void> Write(std::span<const uint8_t> bytes) = 0;
};

}  // namespace layerstore
