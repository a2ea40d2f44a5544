// Between JavaScript values and C++ ones: named guards for arguments, records for errors and results.
// JavaScript thread only.
#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hash/sha256.h"
#include "sys/result.h"

namespace layerstore::binding {

struct Control;

// Guard: reads values of the types that the contract promises. The first wrong one throws a TypeError that names it;
// after that every reader gives an empty value, and the caller returns when failed() says so.
class Guard {
 public:
  explicit Guard(Napi::Env env) : env_(env) {}

  // Text without a zero byte, as UTF-8.
  std::string Text(const Napi::Value& value, const char* name);
  std::string OptionalText(const Napi::Value& value, const char* name);
  std::vector<std::string> TextList(const Napi::Value& value, const char* name);
  // Text as UTF-8, or the bytes of a Uint8Array.
  std::string Bytes(const Napi::Value& value, const char* name);
  // false where it is undefined.
  bool Flag(const Napi::Value& value, const char* name);
  // A whole number; Infinity, and what is over 2^53, is the greatest uint64_t.
  uint64_t Count(const Napi::Value& value, const char* name);
  std::optional<uint32_t> OptionalId(const Napi::Value& value, const char* name);
  // 64 lower-case hex digits behind "sha256:".
  Sha256Digest Digest(const Napi::Value& value, const char* name);
  Napi::Object Object(const Napi::Value& value, const char* name);
  // A CancelToken, or a fresh one where the value is undefined.
  std::shared_ptr<Control> Token(const Napi::Value& value, const char* name);

  [[nodiscard]] bool failed() const { return failed_; }
  void Fail(const char* name, const char* expected);

 private:
  Napi::Env env_;
  bool failed_ = false;
};

// What `text` stands for in `table`.
template <typename T, size_t N>
T Named(Guard& guard, const std::pair<const char*, T> (&table)[N], const std::string& text, const char* name) {
  for (const auto& [known, value] : table) {
    if (text == known) return value;
  }
  guard.Fail(name, "one of the words of the contract");
  return table[0].second;
}

// { fault, errno, syscall, path, dest, detail, offset }; fields that say nothing are left out.
Napi::Object ErrorRecord(Napi::Env env, const Error& error);

Napi::Value Number(Napi::Env env, uint64_t value);

// Whether `bytes` are well-formed UTF-8, so that they survive as a JavaScript string.
bool IsUtf8(const std::string& bytes);

}  // namespace layerstore::binding
