// HashedSink: what a tar is written into on its way out: bytes are gathered in blocks, each block goes to the sink on
// the caller's thread and to SHA-256 on a thread of its own at the same time, without a copy. One thread at a time uses
// it; the hashing thread ends in Finish() or in the destructor.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "hash/sha256.h"
#include "sys/mutex.h"
#include "sys/pages.h"
#include "sys/stream.h"
#include "sys/thread.h"

namespace layerstore::hash {

class HashedSink final : public ByteSink {
 public:
  // Big enough that a wake-up of the other core is seldom, small enough that the caches hold what is in flight.
  static constexpr size_t kBlockBytes = size_t{512} << 10;

  // `out` outlives the HashedSink.
  static Result<std::unique_ptr<HashedSink>> Open(ByteSink& out);
  ~HashedSink() override;

  // Copies `bytes` in.
  Result<void> Write(std::span<const uint8_t> bytes) override;
  // Room to fill, never empty: at most what is left of a block. Commit() says how much of it was filled.
  Result<std::span<uint8_t>> Space();
  Result<void> Commit(size_t bytes);
  Result<void> WriteZeros(uint64_t count);

  // Flushes and gives the digest of all. No Write after it.
  Result<Sha256Digest> Finish();
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  struct Block {
    std::span<uint8_t> memory;
    size_t used = 0;
  };
  static constexpr size_t kBlocks = 4;

  explicit HashedSink(ByteSink& out);
  Result<void> Flush();
  void HashLoop();

  ByteSink& out_;
  std::unique_ptr<uint8_t[]> first_;  // block, of small pages: much of what passes here is a few KiB
  sys::Pages pages_;                  // of the other blocks
  std::vector<Block> blocks_;
  size_t current_ = 0;
  uint64_t bytes_ = 0;

  sys::Mutex mutex_;
  sys::Condition changed_;
  std::array<bool, kBlocks> busy_ LS_GUARDED_BY(mutex_) = {};  // with the hashing thread
  size_t hash_next_ LS_GUARDED_BY(mutex_) = 0;                 // block that the hashing thread takes next
  bool ending_ LS_GUARDED_BY(mutex_) = false;
  Sha256 sha_;
  sys::Thread thread_;
};

}  // namespace layerstore::hash
