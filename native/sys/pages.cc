#include "sys/pages.h"

#include <sys/mman.h>

#include <cstdlib>
#include <utility>

namespace layerstore::sys {

Pages::Pages(size_t bytes) {
  const size_t size = (bytes + kHugeBytes - 1) / kHugeBytes * kHugeBytes;
  // The kernel aligns to small pages, so there is one huge page more than needed, and what is over goes back.
  void* const mapped = mmap(nullptr, size + kHugeBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) std::abort();
  auto* const start = static_cast<uint8_t*>(mapped);
  const size_t before = (kHugeBytes - reinterpret_cast<uintptr_t>(start) % kHugeBytes) % kHugeBytes;
  if (before > 0) munmap(start, before);
  if (before < kHugeBytes) munmap(start + before + size, kHugeBytes - before);
  bytes_ = {start + before, size};
  (void)madvise(bytes_.data(), size, MADV_HUGEPAGE);  // small ones do as well
}

Pages::Pages(Pages&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

Pages& Pages::operator=(Pages&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

Pages::~Pages() {
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
}

}  // namespace layerstore::sys
