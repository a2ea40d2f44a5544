#include "binding/convert.h"

#include <cmath>
#include <limits>

#include "binding/cancel_token.h"
#include "binding/environment.h"
#include "hash/sha256.h"
#include "sys/result.h"

namespace layerstore::binding {
namespace {

const char* FaultName(Fault fault) {
  switch (fault) {
    case Fault::kSystem:
      return "system";
    case Fault::kBadTar:
      return "badTar";
    case Fault::kBadCompression:
      return "badCompression";
    case Fault::kUnsafePath:
      return "unsafePath";
    case Fault::kLimit:
      return "limit";
    case Fault::kCorrupt:
      return "corrupt";
    case Fault::kNotSupported:
      return "notSupported";
    case Fault::kInvalid:
      return "invalid";
    case Fault::kDigestMismatch:
      return "digestMismatch";
    case Fault::kCancelled:
      return "cancelled";
    case Fault::kSourceError:
      return "sourceError";
  }
  return "system";
}

int HexDigit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return -1;
}

}  // namespace

void Guard::Refuse(const std::string& sentence) {
  if (failed_) return;
  failed_ = true;
  // What a getter or a proxy threw is replaced: the caller is told which argument is wrong.
  if (env_.IsExceptionPending()) (void)env_.GetAndClearPendingException();
  Napi::TypeError error = Napi::TypeError::New(env_, sentence);
  error.Value().Set("fault", FaultName(Fault::kInvalid));
  error.ThrowAsJavaScriptException();
}

void Guard::Fail(const char* name, const char* expected) {
  if (!failed_) Refuse(std::string(name) + " must be " + expected);
}

Napi::Value Guard::Member(const Napi::Object& object, const char* name) {
  if (failed_) return env_.Undefined();
  napi_value member = nullptr;
  if (napi_get_named_property(env_, object, name, &member) == napi_ok) return Napi::Value(env_, member);
  Fail(name, "a member that can be read");
  return env_.Undefined();
}

uint32_t Guard::Length(const Napi::Value& array, const char* name) {
  uint32_t length = 0;
  // A proxy of an array is none.
  if (!failed_ && (array.IsEmpty() || napi_get_array_length(env_, array, &length) != napi_ok)) Fail(name, "an array");
  return failed_ ? 0 : length;
}

Napi::Value Guard::Element(const Napi::Value& array, uint32_t index, const char* name) {
  if (failed_) return env_.Undefined();
  napi_value element = nullptr;
  if (napi_get_element(env_, array, index, &element) == napi_ok) return Napi::Value(env_, element);
  Fail(name, "an array whose elements can be read");
  return env_.Undefined();
}

std::string Guard::Text(const Napi::Value& value, const char* name) {
  if (failed_) return {};
  if (value.IsEmpty() || !value.IsString()) {
    Fail(name, "a string");
    return {};
  }
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.find('\0') != std::string::npos) {
    Fail(name, "a string without a zero byte");
    return {};
  }
  return text;
}

std::string Guard::OptionalText(const Napi::Value& value, const char* name) {
  if (failed_ || value.IsEmpty() || value.IsUndefined()) return {};
  return Text(value, name);
}

std::vector<std::string> Guard::TextList(const Napi::Value& value, const char* name) {
  std::vector<std::string> list;
  ForEach(value, name, [&](const Napi::Value& element) { list.push_back(Text(element, name)); });
  return list;
}

std::string Guard::Bytes(const Napi::Value& value, const char* name) {
  if (failed_) return {};
  if (!value.IsEmpty() && value.IsString()) return value.As<Napi::String>().Utf8Value();
  const std::span<const uint8_t> bytes = Chunk(value, name);
  return {bytes.begin(), bytes.end()};
}

std::span<const uint8_t> Guard::Chunk(const Napi::Value& value, const char* name) {
  if (failed_) return {};
  constexpr const char* kExpected = "a Uint8Array whose memory is neither shared between threads nor detached";
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void* data = nullptr;
  napi_value buffer = nullptr;
  bool plain = false;
  bool detached = true;
  // Over shared memory a Uint8Array says that it has a buffer, which is no ArrayBuffer.
  if (value.IsEmpty() || !value.IsTypedArray() ||
      napi_get_typedarray_info(env_, value, &type, &length, &data, &buffer, nullptr) != napi_ok ||
      (type != napi_uint8_array && type != napi_uint8_clamped_array) ||
      napi_is_arraybuffer(env_, buffer, &plain) != napi_ok || !plain ||
      napi_is_detached_arraybuffer(env_, buffer, &detached) != napi_ok || detached) {
    Fail(name, kExpected);
    return {};
  }
  if (length == 0 || data == nullptr) return {};
  return {static_cast<const uint8_t*>(data), length};
}

bool Guard::Flag(const Napi::Value& value, const char* name) {
  if (failed_ || value.IsEmpty() || value.IsUndefined()) return false;
  if (!value.IsBoolean()) {
    Fail(name, "a boolean");
    return false;
  }
  return value.As<Napi::Boolean>().Value();
}

double Guard::Ratio(const Napi::Value& value, const char* name) {
  if (failed_) return 0;
  const double number = !value.IsEmpty() && value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (number >= 0) return number;  // NaN is not
  Fail(name, "a number that is not negative");
  return 0;
}

uint64_t Guard::Count(const Napi::Value& value, const char* name) {
  const double number = Ratio(value, name);
  if (number >= 9007199254740992.0) return std::numeric_limits<uint64_t>::max();
  if (number != std::trunc(number)) Fail(name, "a whole number");
  return failed_ ? 0 : static_cast<uint64_t>(number);
}

uint32_t Guard::Word(const Napi::Value& value, const char* name) {
  const uint64_t number = Count(value, name);
  if (number > std::numeric_limits<uint32_t>::max()) Fail(name, "a whole number of 32 bits");
  return failed_ ? 0 : static_cast<uint32_t>(number);
}

std::optional<uint32_t> Guard::OptionalWord(const Napi::Value& value, const char* name) {
  if (failed_ || value.IsEmpty() || value.IsUndefined()) return std::nullopt;
  return Word(value, name);
}

int Guard::Descriptor(const Napi::Value& value, const char* name) {
  const uint64_t number = Count(value, name);
  if (number > static_cast<uint64_t>(std::numeric_limits<int>::max())) Fail(name, "a file descriptor");
  return failed_ ? -1 : static_cast<int>(number);
}

hash::Sha256Digest Guard::Digest(const Napi::Value& value, const char* name) {
  hash::Sha256Digest digest{};
  const std::string text = Text(value, name);
  if (failed_) return digest;
  constexpr size_t kPrefix = 7;  // "sha256:"
  bool good = text.size() == kPrefix + 2 * digest.size() && text.starts_with("sha256:");
  for (size_t i = 0; good && i < digest.size(); ++i) {
    const int high = HexDigit(text[kPrefix + 2 * i]);
    const int low = HexDigit(text[kPrefix + 2 * i + 1]);
    good = high >= 0 && low >= 0;
    digest[i] = static_cast<uint8_t>(high * 16 + low);
  }
  if (!good) Fail(name, "\"sha256:\" and 64 lower-case hex digits");
  return digest;
}

Napi::Object Guard::Object(const Napi::Value& value, const char* name) {
  if (!failed_ && !value.IsEmpty() && value.IsObject()) return value.As<Napi::Object>();
  Fail(name, "an object");
  return Napi::Object::New(env_);
}

Napi::Function Guard::Function(const Napi::Value& value, const char* name) {
  if (!failed_ && !value.IsEmpty() && value.IsFunction()) return value.As<Napi::Function>();
  Fail(name, "a function");
  return {};
}

std::shared_ptr<Control> Guard::Token(const Napi::Value& value, const char* name) {
  if (failed_ || value.IsEmpty() || value.IsUndefined()) return std::make_shared<Control>();
  auto* const token = Instance<CancelTokenObject>(value, name, "a CancelToken");
  return token == nullptr ? std::make_shared<Control>() : token->control();
}

Napi::Object ErrorRecord(Napi::Env env, const Error& error) {
  Napi::Object record = Napi::Object::New(env);
  record.Set("fault", FaultName(error.fault));
  if (error.err != 0) record.Set("errno", error.err);
  if (error.syscall != nullptr && error.syscall[0] != 0) record.Set("syscall", error.syscall);
  if (!error.path.empty()) record.Set("path", error.path);
  if (!error.dest.empty()) record.Set("dest", error.dest);
  if (!error.detail.empty()) record.Set("detail", error.detail);
  if (error.fault != Fault::kSystem) record.Set("offset", Number(env, error.offset));
  return record;
}

Napi::Value Number(Napi::Env env, uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); }

bool IsUtf8(const std::string& bytes) {
  const auto* at = reinterpret_cast<const unsigned char*>(bytes.data());
  const auto* const end = at + bytes.size();
  while (at < end) {
    if (*at < 0x80) {
      ++at;
      continue;
    }
    const int more = *at >= 0xC2 && *at < 0xE0 ? 1 : *at >= 0xE0 && *at < 0xF0 ? 2 : *at >= 0xF0 && *at < 0xF5 ? 3 : 0;
    if (more == 0 || end - at <= more) return false;
    // The second byte's range excludes over-long forms, surrogates, and what lies beyond U+10FFFF.
    const unsigned char low = *at == 0xE0 ? 0xA0 : *at == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = *at == 0xED ? 0x9F : *at == 0xF4 ? 0x8F : 0xBF;
    if (at[1] < low || at[1] > high) return false;
    for (int i = 2; i <= more; ++i) {
      if ((at[i] & 0xC0) != 0x80) return false;
    }
    at += more + 1;
  }
  return true;
}

}  // namespace layerstore::binding
