// PushSource: a ByteSource whose bytes JavaScript pushes. The JavaScript thread calls Push, End and Fail; one native
// thread calls Read; anyone calls Close. Holds at most kCapacity bytes and what one push brings beyond it.
#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "sys/mutex.h"
#include "sys/stream.h"

namespace layerstore::binding {

class PushSource : public ByteSource {
 public:
  // `room` is called on the reading thread, once for each Push that found none.
  explicit PushSource(std::function<void()> room) : room_(std::move(room)) {}

  // Copies the bytes. Whether there is room for more; if not, `room` will be called.
  bool Push(std::span<const uint8_t> bytes);
  void End() { Stop(State::kEnded); }
  // Read fails with kSourceError from now on.
  void Fail() { Stop(State::kFailed); }
  // Read fails with kCancelled from now on.
  void Close() { Stop(State::kClosed); }

  Result<size_t> Read(std::span<uint8_t> into) override;

 private:
  enum class State : uint8_t { kOpen, kEnded, kFailed, kClosed };
  static constexpr size_t kCapacity = size_t{2} << 20;
  // A reader is woken for this much at once: waking a thread on another core costs more than copying some blocks.
  static constexpr size_t kWakeBytes = size_t{256} << 10;

  struct Chunk {
    std::unique_ptr<uint8_t[]> bytes;
    size_t size = 0;
    size_t taken = 0;
  };

  void Stop(State state);
  size_t TakeInto(std::span<uint8_t> into) LS_REQUIRES(mutex_);

  std::function<void()> room_;
  sys::Mutex mutex_;
  sys::Condition changed_;
  std::deque<Chunk> chunks_ LS_GUARDED_BY(mutex_);
  size_t queued_ LS_GUARDED_BY(mutex_) = 0;
  bool wants_room_ LS_GUARDED_BY(mutex_) = false;
  bool stalled_ LS_GUARDED_BY(mutex_) = false;  // nothing is queued, and the reader sleeps until the next push
  State state_ LS_GUARDED_BY(mutex_) = State::kOpen;
};

}  // namespace layerstore::binding
