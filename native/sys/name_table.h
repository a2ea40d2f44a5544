// NameTable: numbers by name, in one piece of memory. Names are borrowed. One thread's to fill; then any thread may
// look.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace layerstore {

class NameTable {
 public:
  static constexpr int32_t kNone = -1;

  // For at most `count` names.
  explicit NameTable(size_t count) : slots_(std::bit_ceil(2 * count + 1)) {}

  // False: there is such a name already.
  bool Insert(std::string_view name, int32_t value) {
    Slot& slot = slots_[SlotOf(name)];
    if (slot.value != kNone) return false;
    slot = {name, value};
    return true;
  }
  // kNone: there is no such name.
  [[nodiscard]] int32_t Find(std::string_view name) const { return slots_[SlotOf(name)].value; }

 private:
  struct Slot {
    std::string_view name;
    int32_t value = kNone;
  };

  [[nodiscard]] size_t SlotOf(std::string_view name) const {
    const size_t mask = slots_.size() - 1;
    size_t at = std::hash<std::string_view>()(name) & mask;
    while (slots_[at].value != kNone && slots_[at].name != name) at = (at + 1) & mask;
    return at;
  }

  std::vector<Slot> slots_;
};

}  // namespace layerstore
