// BlockQueue: hands big blocks of tar from the decoding thread to the applying one. Bounded by its pool of blocks,
// which are reused: the producer waits for a free one, the consumer for a full one. Two threads use it, one on each
// side.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "sys/mutex.h"
#include "sys/pages.h"
#include "sys/result.h"

namespace layerstore::unpack {

class BlockQueue {
 public:
  static constexpr size_t kBlockBytes = size_t{1} << 20;
  static constexpr size_t kBlocks = 6;
  // Of the first block, which is of small pages: much of what passes here is a few KiB.
  static constexpr size_t kSmallBytes = size_t{64} << 10;

  struct Block {
    std::span<uint8_t> memory;
    size_t used = 0;
    std::unique_ptr<uint8_t[]> own;  // of the first block
    [[nodiscard]] std::span<const uint8_t> data() const { return memory.first(used); }
    [[nodiscard]] std::span<uint8_t> room() const { return memory.subspan(used); }
  };
  // Shared by whoever reads it; back in the pool when the last one drops it.
  using Ref = std::shared_ptr<Block>;

  // Producer: an empty block; none where the consumer has gone.
  Ref Acquire() {
    sys::MutexLock lock(mutex_);
    while (!consumer_gone_ && pool_.empty() && made_ == kBlocks) changed_.Wait(lock);
    if (consumer_gone_) return nullptr;
    std::unique_ptr<Block> block;
    if (!pool_.empty()) {
      block = std::move(pool_.back());
      pool_.pop_back();
    } else {
      block = Make();
    }
    block->used = 0;
    return {block.release(), [this](Block* back) { Recycle(back); }};
  }
  void Push(Ref block) {
    const sys::MutexLock lock(mutex_);
    full_.push_back(std::move(block));
    changed_.NotifyAll();
  }
  // No block follows; `error` where the source failed.
  void End(std::optional<Error> error) {
    const sys::MutexLock lock(mutex_);
    ended_ = true;
    error_ = std::move(error);
    changed_.NotifyAll();
  }

  // Consumer: the next block; none at the end.
  Result<Ref> Pop() {
    sys::MutexLock lock(mutex_);
    while (full_.empty() && !ended_) changed_.Wait(lock);
    if (!full_.empty()) {
      Ref block = std::move(full_.front());
      full_.pop_front();
      return block;
    }
    if (error_.has_value()) return *error_;
    return Ref();
  }
  void ConsumerGone() {
    std::deque<Ref> dropped;  // outlives the lock: their way back to the pool takes it
    const sys::MutexLock lock(mutex_);
    consumer_gone_ = true;
    dropped.swap(full_);
    changed_.NotifyAll();
  }

 private:
  std::unique_ptr<Block> Make() LS_REQUIRES(mutex_) {
    auto block = std::make_unique<Block>();
    if (!small_made_) {
      small_made_ = true;
      block->own = std::make_unique_for_overwrite<uint8_t[]>(kSmallBytes);
      block->memory = {block->own.get(), kSmallBytes};
      return block;
    }
    if (pages_.bytes().empty()) pages_ = sys::Pages(kBlocks * kBlockBytes);
    block->memory = pages_.bytes().subspan(made_++ * kBlockBytes, kBlockBytes);
    return block;
  }
  void Recycle(Block* block) {
    std::unique_ptr<Block> owned(block);
    const sys::MutexLock lock(mutex_);
    if (owned->own == nullptr) pool_.push_back(std::move(owned));
    changed_.NotifyAll();
  }

  sys::Mutex mutex_;
  sys::Condition changed_;
  std::vector<std::unique_ptr<Block>> pool_ LS_GUARDED_BY(mutex_);
  std::deque<Ref> full_ LS_GUARDED_BY(mutex_);
  sys::Pages pages_ LS_GUARDED_BY(mutex_);  // of all blocks but the first
  size_t made_ LS_GUARDED_BY(mutex_) = 0;
  bool small_made_ LS_GUARDED_BY(mutex_) = false;
  bool ended_ LS_GUARDED_BY(mutex_) = false;
  bool consumer_gone_ LS_GUARDED_BY(mutex_) = false;
  std::optional<Error> error_ LS_GUARDED_BY(mutex_);
};

}  // namespace layerstore::unpack
