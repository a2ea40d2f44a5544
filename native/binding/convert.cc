#include "binding/convert.h"

#include <cmath>
#include <limits>

#include "binding/cancel_token.h"
#include "binding/environment.h"

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

void Guard::Fail(const char* name, const char* expected) {
  if (!failed_ && !env_.IsExceptionPending()) {
    Napi::TypeError::New(env_, std::string(name) + " must be " + expected).ThrowAsJavaScriptException();
  }
  failed_ = true;
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
  if (failed_) return list;
  if (value.IsEmpty() || !value.IsArray()) {
    Fail(name, "an array of strings");
    return list;
  }
  const auto array = value.As<Napi::Array>();
  list.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length() && !failed_; ++i) list.push_back(Text(array.Get(i), name));
  return list;
}

std::string Guard::Bytes(const Napi::Value& value, const char* name) {
  if (failed_) return {};
  if (!value.IsEmpty() && value.IsString()) return value.As<Napi::String>().Utf8Value();
  if (!value.IsEmpty() && value.IsTypedArray()) {
    const auto array = value.As<Napi::TypedArray>();
    const auto* data = static_cast<const char*>(array.ArrayBuffer().Data());
    if (array.ByteLength() == 0) return {};
    return std::string(data + array.ByteOffset(), array.ByteLength());
  }
  Fail(name, "a string or a Uint8Array");
  return {};
}

bool Guard::Flag(const Napi::Value& value, const char* name) {
  if (failed_ || value.IsEmpty() || value.IsUndefined()) return false;
  if (!value.IsBoolean()) {
    Fail(name, "a boolean");
    return false;
  }
  return value.As<Napi::Boolean>().Value();
}

uint64_t Guard::Count(const Napi::Value& value, const char* name) {
  if (failed_) return 0;
  const double number = !value.IsEmpty() && value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (std::isnan(number) || number < 0) {
    Fail(name, "a number that is not negative");
    return 0;
  }
  if (number >= 9007199254740992.0) return std::numeric_limits<uint64_t>::max();
  return static_cast<uint64_t>(number);
}

std::optional<uint32_t> Guard::OptionalId(const Napi::Value& value, const char* name) {
  if (failed_ || value.IsEmpty() || value.IsUndefined()) return std::nullopt;
  const uint64_t id = Count(value, name);
  if (id > std::numeric_limits<uint32_t>::max()) Fail(name, "a number of 32 bits");
  return static_cast<uint32_t>(id);
}

Sha256Digest Guard::Digest(const Napi::Value& value, const char* name) {
  Sha256Digest digest{};
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

std::shared_ptr<Control> Guard::Token(const Napi::Value& value, const char* name) {
  if (failed_ || value.IsEmpty() || value.IsUndefined()) return std::make_shared<Control>();
  if (!value.IsObject() || !value.As<Napi::Object>().InstanceOf(Environment::Of(env_).cancel_token.Value())) {
    Fail(name, "a CancelToken");
    return std::make_shared<Control>();
  }
  return CancelTokenObject::Unwrap(value.As<Napi::Object>())->control();
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
