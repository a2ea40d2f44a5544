#include "binding/push_source.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "sys/result.h"

namespace layerstore::binding {
namespace {

// How long a reader waits for more than it could have: a slow source is still read as it comes. Where nothing comes in
// that time it sleeps until something does.
constexpr std::chrono::milliseconds kPatience{10};

}  // namespace

bool PushSource::Push(std::span<const uint8_t> bytes) {
  Chunk chunk;
  chunk.size = bytes.size();
  chunk.bytes = std::make_unique_for_overwrite<uint8_t[]>(bytes.size());
  if (!bytes.empty()) std::memcpy(chunk.bytes.get(), bytes.data(), bytes.size());
  const sys::MutexLock lock(mutex_);
  if (state_ != State::kOpen || bytes.empty()) return true;
  queued_ += chunk.size;
  chunks_.push_back(std::move(chunk));
  if (queued_ >= kWakeBytes || stalled_) changed_.NotifyOne();
  wants_room_ = queued_ >= kCapacity;
  return !wants_room_;
}

void PushSource::Stop(State state) {
  const sys::MutexLock lock(mutex_);
  // The end of a stream stays one; a cancellation comes over everything.
  if (state_ == State::kOpen || state == State::kClosed) state_ = state;
  changed_.NotifyOne();
}

size_t PushSource::TakeInto(std::span<uint8_t> into) {
  size_t given = 0;
  while (given < into.size() && !chunks_.empty()) {
    Chunk& chunk = chunks_.front();
    const size_t count = std::min(into.size() - given, chunk.size - chunk.taken);
    std::memcpy(into.data() + given, chunk.bytes.get() + chunk.taken, count);
    given += count;
    chunk.taken += count;
    if (chunk.taken == chunk.size) chunks_.pop_front();
  }
  queued_ -= given;
  return given;
}

Result<size_t> PushSource::Read(std::span<uint8_t> into) {
  sys::MutexLock lock(mutex_);
  for (;;) {
    if (state_ == State::kClosed) return DataError(Fault::kCancelled, {});
    if (state_ == State::kFailed) return DataError(Fault::kSourceError, {});
    if (queued_ >= kWakeBytes || state_ == State::kEnded) break;
    if (stalled_) {
      changed_.Wait(lock);
      stalled_ = queued_ == 0;
    } else if (!changed_.WaitUntil(lock, std::chrono::steady_clock::now() + kPatience)) {
      if (queued_ > 0) break;
      stalled_ = true;
    }
  }
  const size_t given = TakeInto(into);
  const bool room = wants_room_ && queued_ < kCapacity / 2;
  if (room) wants_room_ = false;
  lock.Unlock();
  if (room) room_();
  return given;
}

}  // namespace layerstore::binding
