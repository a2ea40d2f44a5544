// BlockHash: SHA-256 of blocks in their order, on the caller's thread or on one of its own beside it. One thread at a
// time uses it; the hashing thread ends in Finish() or in the destructor.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "hash/sha256.h"
#include "layer/block_queue.h"
#include "sys/thread.h"

namespace layerstore {

class BlockHash {
 public:
  BlockHash() = default;
  ~BlockHash() { Stop(); }
  BlockHash(const BlockHash&) = delete;
  BlockHash& operator=(const BlockHash&) = delete;

  // What is added from now on is hashed by a thread of its own. At most once.
  Result<void> StartThread(const char* name) {
    LS_ASSIGN(thread_, Thread::Start([this] { Run(); }, {.name = name}));
    threaded_ = true;
    return {};
  }
  // Shares a block that nobody writes to any more.
  void Add(BlockQueue::Ref block) {
    if (threaded_) {
      queue_.Push(std::move(block));
    } else {
      sha_.Update(block->data());
    }
  }
  // Bytes that are the caller's again when it returns.
  void AddCopy(std::span<const uint8_t> bytes) {
    if (!threaded_) return sha_.Update(bytes);
    while (!bytes.empty()) {
      if (current_ == nullptr) current_ = queue_.Acquire();
      const std::span<uint8_t> room = current_->room();
      const size_t count = std::min(room.size(), bytes.size());
      std::memcpy(room.data(), bytes.data(), count);
      current_->used += count;
      bytes = bytes.subspan(count);
      if (current_->room().empty()) queue_.Push(std::exchange(current_, nullptr));
    }
  }
  // Nothing is added after it.
  Sha256Digest Finish() {
    Stop();
    return sha_.Finish();
  }

 private:
  void Run() {
    while (true) {
      auto block = queue_.Pop();
      if (!block.ok() || *block == nullptr) return;
      sha_.Update((*block)->data());
    }
  }
  void Stop() {
    if (!std::exchange(threaded_, false)) return;
    if (current_ != nullptr) queue_.Push(std::exchange(current_, nullptr));
    queue_.End(std::nullopt);
    thread_.Join();
  }

  BlockQueue queue_;  // of other queues' blocks, and of its own where it copies
  BlockQueue::Ref current_;
  Sha256 sha_;
  bool threaded_ = false;
  Thread thread_;
};

}  // namespace layerstore
