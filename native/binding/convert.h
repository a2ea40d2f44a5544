// Between JavaScript values and C++ ones: named guards for arguments, records for errors and results.
// JavaScript thread only.
#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hash/sha256.h"
#include "sys/result.h"

namespace layerstore::binding {

struct Control;

// Guard: reads values of the types that the contract promises, and trusts none of them: JavaScript may hand over
// anything, and reading a member may run any code. The first wrong one throws a TypeError that names it and whose
// `fault` is "invalid"; after that every reader gives an empty value, and the caller returns when failed() says so.
class Guard {
 public:
  explicit Guard(Napi::Env env) : env_(env) {}

  // The member `name`; undefined where there is none. A getter that throws is a wrong argument.
  Napi::Value Member(const Napi::Object& object, const char* name);

  // Text without a zero byte, as UTF-8.
  std::string Text(const Napi::Value& value, const char* name);
  // Empty where it is undefined.
  std::string OptionalText(const Napi::Value& value, const char* name);
  std::vector<std::string> TextList(const Napi::Value& value, const char* name);
  // Text as UTF-8 (zero bytes too), or a copy of the bytes of a Uint8Array.
  std::string Bytes(const Napi::Value& value, const char* name);
  // The bytes of a Uint8Array that is neither shared between threads nor detached: valid until JavaScript runs again.
  std::span<const uint8_t> Chunk(const Napi::Value& value, const char* name);
  // false where it is undefined.
  bool Flag(const Napi::Value& value, const char* name);
  // A whole number; Infinity, and what is over 2^53, is the greatest uint64_t.
  uint64_t Count(const Napi::Value& value, const char* name);
  // A number from 0 on, Infinity too.
  double Ratio(const Napi::Value& value, const char* name);
  // A whole number of 32 bits.
  uint32_t Word(const Napi::Value& value, const char* name);
  std::optional<uint32_t> OptionalWord(const Napi::Value& value, const char* name);
  // A number that can be a file descriptor. The system call finds out whether it is open.
  int Descriptor(const Napi::Value& value, const char* name);
  // 64 lower-case hex digits behind "sha256:".
  hash::Sha256Digest Digest(const Napi::Value& value, const char* name);
  Napi::Object Object(const Napi::Value& value, const char* name);
  // Calls `each` with every element of an array until one is wrong. No room is made by its length, which may be 2^32
  // and may change while elements are read.
  template <typename Each>
  void ForEach(const Napi::Value& value, const char* name, Each each) {
    for (uint32_t i = 0; i < Length(value, name); ++i) each(Element(value, i, name));
  }
  Napi::Function Function(const Napi::Value& value, const char* name);
  // A CancelToken, or a fresh one where the value is undefined.
  std::shared_ptr<Control> Token(const Napi::Value& value, const char* name);
  // The C++ side of an object that T's constructor tagged with T::kTag; null after a failure. A prototype tells
  // nothing: any object can be given any.
  template <typename T>
  T* Instance(const Napi::Value& value, const char* name, const char* expected) {
    if (!failed_ && !value.IsEmpty() && value.IsObject()) {
      const auto object = value.As<Napi::Object>();
      if (object.CheckTypeTag(&T::kTag)) return T::Unwrap(object);
    }
    Fail(name, expected);
    return nullptr;
  }

  [[nodiscard]] bool failed() const { return failed_; }
  void Fail(const char* name, const char* expected);
  // Reports a call that is wrong as a whole.
  void Refuse(const std::string& sentence);

 private:
  // 0 after a failure.
  uint32_t Length(const Napi::Value& array, const char* name);
  Napi::Value Element(const Napi::Value& array, uint32_t index, const char* name);

  Napi::Env env_;
  bool failed_ = false;
};

// The value of `text` in `table`.
template <typename T, size_t N>
T Named(Guard& guard, const std::pair<const char*, T> (&table)[N], const std::string& text, const char* name) {
  for (const auto& [known, value] : table) {
    if (text == known) return value;
  }
  guard.Fail(name, "one of the words of the contract");
  return table[0].second;
}

// { fault, errno, syscall, path, dest, detail, offset }, without empty fields.
Napi::Object ErrorRecord(Napi::Env env, const Error& error);

Napi::Value Number(Napi::Env env, uint64_t value);

// Whether `bytes` are well-formed UTF-8, so that they survive as a JavaScript string.
bool IsUtf8(const std::string& bytes);

}  // namespace layerstore::binding
