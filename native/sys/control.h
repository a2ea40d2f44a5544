// What a caller has of running work: CancelToken asks it to stop, Progress tells how far it is. Any thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "sys/result.h"

namespace layerstore {

// Loops test it at each block and each entry; a call that waits for a descriptor polls WakeDescriptor() beside it.
class CancelToken {
 public:
  CancelToken() = default;
  ~CancelToken();
  CancelToken(const CancelToken&) = delete;
  CancelToken& operator=(const CancelToken&) = delete;

  void Cancel();
  [[nodiscard]] bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // Readable from Cancel() on; the token's own, made by the first call.
  Result<int> WakeDescriptor() const;

 private:
  std::atomic<bool> cancelled_{false};
  mutable std::atomic<int> wake_{-1};  // an eventfd; most work never waits and has none
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
