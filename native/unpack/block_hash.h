// BlockHash: SHA-256 of blocks in their order, by a thread of its own beside the caller's once there is more than one
// block: most layers are small, and starting a thread takes longer than hashing them. One thread at a time uses it; the
// hashing thread ends in Finish() or in the destructor.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "hash/sha256.h"
#include "sys/thread.h"
#include "unpack/block_queue.h"

namespace layerstore::unpack {

class BlockHash {
 public:
  explicit BlockHash(const char* name) : name_(name) {}
  ~BlockHash() { Stop(); }
  BlockHash(const BlockHash&) = delete;
  BlockHash& operator=(const BlockHash&) = delete;

  // Shares a block that nobody writes to any more.
  Result<void> Add(BlockQueue::Ref block) {
    LS_ASSIGN(const bool here, Here(block->used));
    if (here) {
      sha_.Update(block->data());
    } else {
      queue_.Push(std::move(block));
    }
    return {};
  }
  // Bytes that are the caller's again when it returns.
  Result<void> AddCopy(std::span<const uint8_t> bytes) {
    LS_ASSIGN(const bool here, Here(bytes.size()));
    if (here) {
      sha_.Update(bytes);
      return {};
    }
    while (!bytes.empty()) {
      if (current_ == nullptr) current_ = queue_.Acquire();
      const std::span<uint8_t> room = current_->room();
      const size_t count = std::min(room.size(), bytes.size());
      std::memcpy(room.data(), bytes.data(), count);
      current_->used += count;
      bytes = bytes.subspan(count);
      if (current_->room().empty()) queue_.Push(std::exchange(current_, nullptr));
    }
    return {};
  }
  // Nothing is added after it.
  hash::Sha256Digest Finish() {
    Stop();
    return sha_.Finish();
  }

 private:
  // Whether the caller's thread hashes the next `bytes`; from the first that it does not, the other one does all.
  Result<bool> Here(size_t bytes) {
    if (threaded_) return false;
    here_ += bytes;
    if (here_ <= BlockQueue::kSmallBytes) return true;
    LS_ASSIGN(thread_, sys::Thread::Start([this] { Run(); }, {.name = name_}));
    threaded_ = true;
    return false;
  }
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
  const char* name_;
  hash::Sha256 sha_;
  size_t here_ = 0;  // bytes for the caller's thread
  bool threaded_ = false;
  sys::Thread thread_;
};

}  // namespace layerstore::unpack
