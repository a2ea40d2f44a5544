// Pages: anonymous memory, by huge pages where the kernel gives them. One owner at a time; the memory may be used from
// any thread. A fault for each 4 KiB is most of what a fresh buffer costs, and on a virtual machine that keeps shadow
// page tables it is far more than filling it: measured 12 us a page, 3 ms a MiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace layerstore::sys {

class Pages {
 public:
  static constexpr size_t kHugeBytes = size_t{2} << 20;

  Pages() = default;
  // At least `bytes`, rounded up to huge pages, none of them touched yet. Out of memory ends the process, as in `new`.
  explicit Pages(size_t bytes);
  Pages(Pages&& other) noexcept;
  Pages& operator=(Pages&& other) noexcept;
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages();

  [[nodiscard]] std::span<uint8_t> bytes() const { return bytes_; }

 private:
  std::span<uint8_t> bytes_;
};

}  // namespace layerstore::sys
