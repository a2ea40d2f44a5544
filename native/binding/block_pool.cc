#include "binding/block_pool.h"

#include <utility>

#include "sys/pages.h"

namespace layerstore::binding {

Block::~Block() {
  if (pool_) pool_->GiveBack(slab_, memory_);
}

Block BlockPool::Take() {
  const sys::MutexLock lock(mutex_);
  // The newest first: what came back last is what the caches may still have.
  for (size_t i = slabs_.size(); i-- > 0;) {
    Slab& slab = slabs_[i];
    if (slab.free.empty()) continue;
    const std::span<uint8_t> memory = slab.free.back();
    slab.free.pop_back();
    return {shared_from_this(), i, memory};
  }
  Slab& slab = slabs_.emplace_back();
  slab.pages = sys::Pages(sys::Pages::kHugeBytes);
  for (size_t i = kBlocksOfSlab; i-- > 1;) {
    slab.free.push_back(slab.pages.bytes().subspan(i * kBlockBytes, kBlockBytes));
  }
  return {shared_from_this(), slabs_.size() - 1, slab.pages.bytes().first(kBlockBytes)};
}

void BlockPool::Retire() {
  const sys::MutexLock lock(mutex_);
  retired_ = true;
  for (Slab& slab : slabs_) {
    if (slab.free.size() == kBlocksOfSlab) slab = Slab();
  }
}

void BlockPool::GiveBack(size_t slab, std::span<uint8_t> memory) {
  const sys::MutexLock lock(mutex_);
  Slab& home = slabs_[slab];
  home.free.push_back(memory);
  if (retired_ && home.free.size() == kBlocksOfSlab) home = Slab();
}

}  // namespace layerstore::binding
