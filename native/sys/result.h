// Result<T>: a value or an Error. The package is built without C++ exceptions, so every function that can fail returns
// one.
#pragma once

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace layerstore {

// What kind of failure an Error is. kSystem carries an errno; the others are about the data and become codes of the
// public contract in TypeScript (kBadTar -> ERR_BAD_TAR).
enum class Fault : uint8_t {
  kSystem,
  kBadTar,
  kBadCompression,
  kUnsafePath,
  kLimit,
  kCorrupt,
  kNotSupported,
  kInvalid,
  kDigestMismatch,
  kCancelled,
  kSourceError,  // the JavaScript source failed; its own error is kept on that side
};

// Holds facts, never a sentence: TypeScript writes the message.
struct Error {
  Fault fault = Fault::kSystem;
  int err = 0;               // errno, for kSystem
  const char* syscall = "";  // static string
  std::string path;
  std::string dest;
  std::string detail;   // which limit, which header field, what the kernel said
  uint64_t offset = 0;  // byte offset in the tar, where there is one
};

// An Error from errno as it is now. Call it before anything else can change errno.
[[nodiscard]] inline Error SysError(const char* syscall, std::string path = {}, std::string dest = {}) {
  Error error;
  error.err = errno;
  error.syscall = syscall;
  error.path = std::move(path);
  error.dest = std::move(dest);
  return error;
}

[[nodiscard]] inline Error DataError(Fault fault, std::string detail, std::string path = {}, uint64_t offset = 0) {
  Error error;
  error.fault = fault;
  error.detail = std::move(detail);
  error.path = std::move(path);
  error.offset = offset;
  return error;
}

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  [[nodiscard]] T& value() { return *std::get_if<0>(&state_); }
  [[nodiscard]] const T& value() const { return *std::get_if<0>(&state_); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  [[nodiscard]] Error& error() { return *std::get_if<1>(&state_); }
  [[nodiscard]] const Error& error() const { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  [[nodiscard]] Error& error() { return *error_; }
  [[nodiscard]] const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

}  // namespace layerstore

// Returns the Error of `expr` from the enclosing function, which returns a Result of any type.
#define LS_TRY(expr)                                       \
  do {                                                     \
    auto ls_try_result = (expr);                           \
    if (!ls_try_result.ok()) return ls_try_result.error(); \
  } while (false)

#define LS_CONCAT_INNER(a, b) a##b
#define LS_CONCAT(a, b) LS_CONCAT_INNER(a, b)
#define LS_ASSIGN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                   \
  if (!tmp.ok()) return tmp.error();   \
  lhs = std::move(tmp.value())
// LS_ASSIGN(auto fd, OpenFile(path)): the value, or return the Error.
#define LS_ASSIGN(lhs, expr) LS_ASSIGN_IMPL(LS_CONCAT(ls_assign_, __LINE__), lhs, expr)
