// Counts the library's system calls on names and directories, and the entries that those gave, in an executable that is
// linked with layerstore_count_calls (CMakeLists.txt). Any thread.
#pragma once

#include <atomic>
#include <cstddef>

namespace layerstore::test {

extern std::atomic<size_t> calls;

}  // namespace layerstore::test
