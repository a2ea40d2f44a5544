#include "binding/block_sink.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "sys/result.h"

namespace layerstore::binding {

Result<void> BlockSink::Write(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    if (current_.block.memory().empty()) current_ = {pool_->Take(), 0};
    const std::span<uint8_t> room = current_.block.memory().subspan(current_.size);
    const size_t count = std::min(bytes.size(), room.size());
    std::memcpy(room.data(), bytes.data(), count);
    current_.size += count;
    bytes = bytes.subspan(count);
    if (count == room.size() && !Flush()) return DataError(Fault::kCancelled, {});
  }
  return {};
}

bool BlockSink::Flush() {
  sys::MutexLock lock(mutex_);
  while (!closed_ && blocks_.size() >= kMaxBlocks) changed_.Wait(lock);
  if (closed_) return false;
  blocks_.push_back(std::exchange(current_, {}));
  const bool tell = std::exchange(wanted_, false);
  lock.Unlock();
  if (tell) ready_();
  return true;
}

void BlockSink::Finish(std::optional<Error> error) {
  if (current_.size > 0) Flush();
  current_ = {};
  pool_->Retire();  // whoever holds the stream no longer holds its memory
  sys::MutexLock lock(mutex_);
  finished_ = true;
  error_ = std::move(error);
  const bool tell = std::exchange(wanted_, false);
  lock.Unlock();
  if (tell) ready_();
}

void BlockSink::Close() {
  const sys::MutexLock lock(mutex_);
  closed_ = true;
  blocks_.clear();
  changed_.NotifyOne();
}

std::variant<NotYet, FilledBlock, EndOfBlocks, Error> BlockSink::Take() {
  const sys::MutexLock lock(mutex_);
  if (!blocks_.empty()) {
    FilledBlock block = std::move(blocks_.front());
    blocks_.pop_front();
    changed_.NotifyOne();
    return block;
  }
  if (!finished_ && !closed_) {
    wanted_ = true;
    return NotYet{};
  }
  if (error_) return *error_;
  if (closed_) return DataError(Fault::kCancelled, {});
  return EndOfBlocks{};
}

}  // namespace layerstore::binding
