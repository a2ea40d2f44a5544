// GrowingFile: a ByteSource over a file that somebody else still writes, front to back. The JavaScript thread calls
// Grow, End and Fail; one native thread calls Open, then Read; anyone calls Close. Owns its descriptor.
#pragma once

#include <string>

#include "sys/mutex.h"
#include "sys/stream.h"
#include "sys/unique_fd.h"

namespace layerstore::binding {

class GrowingFile : public ByteSource {
 public:
  Result<void> Open(const std::string& path);

  // Every byte before `readable` is in the file, and none of them will be other than it is.
  void Grow(uint64_t readable);
  // What Grow told last is all.
  void End() { Stop(State::kEnded); }
  // Read fails with kSourceError from now on.
  void Fail() { Stop(State::kFailed); }
  // Read fails with kCancelled from now on.
  void Close() { Stop(State::kClosed); }

  Result<size_t> Read(std::span<uint8_t> into) override;

 private:
  enum class State : uint8_t { kOpen, kEnded, kFailed, kClosed };

  void Stop(State state);

  UniqueFd fd_;  // the reading thread's, with the two below
  std::string path_;
  uint64_t position_ = 0;
  sys::Mutex mutex_;
  sys::Condition changed_;
  uint64_t readable_ LS_GUARDED_BY(mutex_) = 0;
  State state_ LS_GUARDED_BY(mutex_) = State::kOpen;
};

}  // namespace layerstore::binding
