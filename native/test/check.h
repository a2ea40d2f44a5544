// What the plain test executables share: CHECK counts failures and goes on; each main() ends with `return Finish();`.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sys/stream.h"

namespace layerstore::test {

// Atomic: a test may check on several threads.
inline std::atomic<int> failures = 0;
inline std::atomic<int> checks = 0;

inline void Report(bool good, const char* file, int line, const std::string& what) {
  checks++;
  if (good) return;
  failures++;
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
}

inline int Finish() {
  std::printf("%d checks, %d failures\n", checks.load(), failures.load());
  return failures == 0 ? 0 : 1;
}

inline std::string Describe(const Error& error) {
  return "fault " + std::to_string(static_cast<int>(error.fault)) + " errno " + std::to_string(error.err) + " " +
         error.syscall + " path '" + error.path + "' dest '" + error.dest + "' detail '" + error.detail + "'";
}

inline std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// A source over bytes in memory that gives at most `step` of them at once.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::string_view bytes, size_t step = SIZE_MAX) : bytes_(bytes), step_(step) {}
  Result<size_t> Read(std::span<uint8_t> into) override {
    const size_t count = std::min({into.size(), step_, bytes_.size() - at_});
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(at_), count, into.begin());
    at_ += count;
    return count;
  }

 private:
  std::string_view bytes_;
  size_t step_;
  size_t at_ = 0;
};

class StringSink final : public ByteSink {
 public:
  Result<void> Write(std::span<const uint8_t> bytes) override {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }
  std::string text;
};

}  // namespace layerstore::test

#define CHECK(condition) ::layerstore::test::Report((condition), __FILE__, __LINE__, #condition)
#define CHECK_EQ(left, right)                                                                     \
  do {                                                                                            \
    const auto& ls_left = (left);                                                                 \
    const auto& ls_right = (right);                                                               \
    ::layerstore::test::Report(ls_left == ls_right, __FILE__, __LINE__, #left " is not " #right); \
  } while (false)
#define CHECK_OK(result)                                                                                              \
  do {                                                                                                                \
    auto&& ls_result = (result);                                                                                      \
    ::layerstore::test::Report(ls_result.ok(), __FILE__, __LINE__,                                                    \
                               ls_result.ok() ? "" : #result ": " + ::layerstore::test::Describe(ls_result.error())); \
  } while (false)
