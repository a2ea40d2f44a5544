// BlockPool: blocks of memory for JavaScript to read, which come back when its garbage collector has let go of them and
// are used again, so that they stay mapped and warm. Any thread. Blocks keep their pool alive; memory of which no block
// is out goes back to the kernel once the pool is retired, as soon as its last block is dropped.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "sys/mutex.h"
#include "sys/pages.h"

namespace layerstore::binding {

class BlockPool;

// One block; dropped on any thread.
class Block {
 public:
  Block() = default;
  Block(Block&& other) noexcept = default;
  Block& operator=(Block&& other) noexcept = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block();

  [[nodiscard]] std::span<uint8_t> memory() const { return memory_; }

 private:
  friend class BlockPool;
  Block(std::shared_ptr<BlockPool> pool, size_t slab, std::span<uint8_t> memory)
      : pool_(std::move(pool)), slab_(slab), memory_(memory) {}

  std::shared_ptr<BlockPool> pool_;
  size_t slab_ = 0;
  std::span<uint8_t> memory_;
};

class BlockPool : public std::enable_shared_from_this<BlockPool> {
 public:
  static constexpr size_t kBlockBytes = size_t{256} << 10;

  Block Take();
  // Nothing is taken any more.
  void Retire();

 private:
  friend class Block;
  static constexpr size_t kBlocksOfSlab = sys::Pages::kHugeBytes / kBlockBytes;

  struct Slab {
    sys::Pages pages;
    std::vector<std::span<uint8_t>> free;
  };
  void GiveBack(size_t slab, std::span<uint8_t> memory);

  sys::Mutex mutex_;
  std::vector<Slab> slabs_ LS_GUARDED_BY(mutex_);
  bool retired_ LS_GUARDED_BY(mutex_) = false;
};

}  // namespace layerstore::binding
