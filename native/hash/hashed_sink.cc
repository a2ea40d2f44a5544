#include "hash/hashed_sink.h"

#include <algorithm>
#include <cstring>

namespace layerstore::hash {

HashedSink::HashedSink(ByteSink& out)
    : out_(out),
      first_(std::make_unique_for_overwrite<uint8_t[]>(kBlockBytes)),
      pages_((kBlocks - 1) * kBlockBytes),
      blocks_(kBlocks) {
  blocks_[0].memory = {first_.get(), kBlockBytes};
  for (size_t i = 1; i < kBlocks; ++i) blocks_[i].memory = pages_.bytes().subspan((i - 1) * kBlockBytes, kBlockBytes);
}

Result<std::unique_ptr<HashedSink>> HashedSink::Open(ByteSink& out) {
  std::unique_ptr<HashedSink> sink(new HashedSink(out));
  HashedSink* self = sink.get();
  LS_ASSIGN(sink->thread_, sys::Thread::Start([self] { self->HashLoop(); }, {.name = "ls-hash"}));
  return sink;
}

HashedSink::~HashedSink() {
  {
    const sys::MutexLock lock(mutex_);
    ending_ = true;
  }
  changed_.NotifyAll();
  thread_.Join();
}

// Blocks are filled and hashed in the same circular order, so the two sides need only the `busy` flags.
void HashedSink::HashLoop() {
  sys::MutexLock lock(mutex_);
  for (;;) {
    while (!busy_[hash_next_] && !ending_) changed_.Wait(lock);
    if (!busy_[hash_next_]) return;
    const Block& block = blocks_[hash_next_];
    lock.Unlock();
    sha_.Update(block.memory.first(block.used));
    lock.Lock();
    busy_[hash_next_] = false;
    hash_next_ = (hash_next_ + 1) % kBlocks;
    changed_.NotifyAll();
  }
}

// The block goes to both readers; the next one is free when its turn with the hash is over.
Result<void> HashedSink::Flush() {
  Block& block = blocks_[current_];
  if (block.used == 0) return {};
  {
    const sys::MutexLock lock(mutex_);
    busy_[current_] = true;
  }
  changed_.NotifyAll();
  LS_TRY(out_.Write(block.memory.first(block.used)));
  current_ = (current_ + 1) % kBlocks;
  Block& next = blocks_[current_];
  sys::MutexLock lock(mutex_);
  while (busy_[current_]) changed_.Wait(lock);
  next.used = 0;
  return {};
}

Result<std::span<uint8_t>> HashedSink::Space() {
  if (blocks_[current_].used == kBlockBytes) LS_TRY(Flush());
  const Block& block = blocks_[current_];
  return block.memory.subspan(block.used);
}

Result<void> HashedSink::Commit(size_t bytes) {
  blocks_[current_].used += bytes;
  bytes_ += bytes;
  return {};
}

Result<void> HashedSink::Write(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    LS_ASSIGN(const std::span<uint8_t> space, Space());
    const size_t count = std::min(space.size(), bytes.size());
    std::memcpy(space.data(), bytes.data(), count);
    LS_TRY(Commit(count));
    bytes = bytes.subspan(count);
  }
  return {};
}

Result<void> HashedSink::WriteZeros(uint64_t count) {
  while (count > 0) {
    LS_ASSIGN(const std::span<uint8_t> space, Space());
    const size_t part = static_cast<size_t>(std::min<uint64_t>(space.size(), count));
    std::memset(space.data(), 0, part);
    LS_TRY(Commit(part));
    count -= part;
  }
  return {};
}

Result<Sha256Digest> HashedSink::Finish() {
  LS_TRY(Flush());
  {
    const sys::MutexLock lock(mutex_);
    ending_ = true;
  }
  changed_.NotifyAll();
  thread_.Join();
  return sha_.Finish();
}

}  // namespace layerstore::hash
