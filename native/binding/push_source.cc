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
  const std::lock_guard lock(mutex_);
  if (state_ != State::kOpen || bytes.empty()) return true;
  queued_ += chunk.size;
  chunks_.push_back(std::move(chunk));
  if (queued_ >= kWakeBytes || stalled_) changed_.notify_one();
  wants_room_ = queued_ >= kCapacity;
  return !wants_room_;
}

void PushSource::Stop(State state) {
  const std::lock_guard lock(mutex_);
  // The end of a stream stays one; a cancellation comes over everything.
  if (state_ == State::kOpen || state == State::kClosed) state_ = state;
  changed_.notify_one();
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
  std::unique_lock lock(mutex_);
  for (;;) {
    if (state_ == State::kClosed) return DataError(Fault::kCancelled, {});
    if (state_ == State::kFailed) return DataError(Fault::kSourceError, {});
    if (queued_ >= kWakeBytes || state_ == State::kEnded) break;
    if (stalled_) {
      changed_.wait(lock);
      stalled_ = queued_ == 0;
    } else if (changed_.wait_for(lock, kPatience) == std::cv_status::timeout) {
      if (queued_ > 0) break;
      stalled_ = true;
    }
  }
  const size_t given = TakeInto(into);
  const bool room = wants_room_ && queued_ < kCapacity / 2;
  if (room) wants_room_ = false;
  lock.unlock();
  if (room) room_();
  return given;
}

}  // namespace layerstore::binding
