// What a caller has of running work: CancelToken asks it to stop, Progress tells how far it is. Atomics only: any
// thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "sys/result.h"

namespace layerstore {

// Loops test it at each block and each entry.
class CancelToken {
 public:
  CancelToken() = default;
  CancelToken(const CancelToken&) = delete;
  CancelToken& operator=(const CancelToken&) = delete;

  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  [[nodiscard]] bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

// What work that was asked to stop returns.
[[nodiscard]] inline Error Cancelled() { return DataError(Fault::kCancelled, {}); }

// Written by the work, read by anyone.
struct Progress {
  std::atomic<uint64_t> bytes_read{0};
  std::atomic<uint64_t> bytes_unpacked{0};
  std::atomic<uint64_t> entries{0};
};

}  // namespace layerstore
