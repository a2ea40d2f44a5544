#include "tarsplit/packer.h"

#include <algorithm>
#include <array>

namespace layerstore::tarsplit {
namespace {

// Bytes of the well-formed UTF-8 sequence at the front, by Go's rules (no surrogates, nothing overlong); 0: none.
size_t Utf8Length(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = at(0);
  if (first < 0x80) return 1;
  size_t length = 0;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) length = 2;
  if (first >= 0xE0 && first <= 0xEF) length = 3;
  if (first >= 0xF0 && first <= 0xF4) length = 4;
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  if (length == 0 || text.size() < length || at(1) < low || at(1) > high) return 0;
  for (size_t i = 2; i < length; i++) {
    if (at(i) < 0x80 || at(i) > 0xBF) return 0;
  }
  return length;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

// A JSON string as Go's encoding/json writes it, with its escapes for HTML.
void AppendJsonString(std::string_view text, std::string& out) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const char c = text[0];
    const std::string_view sequence = text.substr(0, length);
    if (sequence == "\u2028" || sequence == "\u2029") {
      out += sequence == "\u2028" ? "\\u2028" : "\\u2029";
    } else if (length > 1) {
      out += sequence;
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\b') {
      out += "\\b";
    } else if (c == '\f') {
      out += "\\f";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<uint8_t>(c) < 0x20 || c == '<' || c == '>' || c == '&') {
      out += "\\u00";
      out += kHex[static_cast<uint8_t>(c) >> 4];
      out += kHex[static_cast<uint8_t>(c) & 15];
    } else {
      out += c;
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  out += '"';
}

}  // namespace

void AppendBase64(std::span<const uint8_t> bytes, std::string& out) {
  static constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const size_t start = out.size();
  out.resize(start + (bytes.size() + 2) / 3 * 4);
  char* to = out.data() + start;
  size_t i = 0;
  for (; i + 3 <= bytes.size(); i += 3, to += 4) {
    const uint32_t word =
        static_cast<uint32_t>(bytes[i]) << 16 | static_cast<uint32_t>(bytes[i + 1]) << 8 | bytes[i + 2];
    to[0] = kAlphabet[word >> 18];
    to[1] = kAlphabet[word >> 12 & 63];
    to[2] = kAlphabet[word >> 6 & 63];
    to[3] = kAlphabet[word & 63];
  }
  if (i == bytes.size()) return;
  const bool two = i + 2 == bytes.size();
  const uint32_t word = static_cast<uint32_t>(bytes[i]) << 16 | (two ? static_cast<uint32_t>(bytes[i + 1]) << 8 : 0);
  to[0] = kAlphabet[word >> 18];
  to[1] = kAlphabet[word >> 12 & 63];
  to[2] = two ? kAlphabet[word >> 6 & 63] : '=';
  to[3] = '=';
}

Result<void> Packer::End() {
  line_ += ",\"position\":";
  line_ += std::to_string(position_++);
  line_ += "}\n";
  return sink_.Write({reinterpret_cast<const uint8_t*>(line_.data()), line_.size()});
}

Result<void> Packer::AddSegment(std::span<const uint8_t> bytes) {
  do {
    const size_t count = std::min(bytes.size(), kMaxSegment);
    line_ = "{\"type\":2,\"payload\":\"";
    AppendBase64(bytes.first(count), line_);
    line_ += '"';
    LS_TRY(End());
    bytes = bytes.subspan(count);
  } while (!bytes.empty());
  return {};
}

Result<void> Packer::AddFile(std::string_view name, uint64_t size, std::optional<uint64_t> crc) {
  line_ = "{\"type\":1";
  if (IsUtf8(name)) {
    if (!name.empty()) {
      line_ += ",\"name\":";
      AppendJsonString(name, line_);
    }
  } else {
    line_ += ",\"name_raw\":\"";
    AppendBase64({reinterpret_cast<const uint8_t*>(name.data()), name.size()}, line_);
    line_ += '"';
  }
  if (size > 0) line_ += ",\"size\":" + std::to_string(size);
  if (crc.has_value()) {
    std::array<uint8_t, 8> payload;
    for (size_t i = 0; i < 8; i++) payload[i] = static_cast<uint8_t>(*crc >> (56 - 8 * i));
    line_ += ",\"payload\":\"";
    AppendBase64(payload, line_);
    line_ += '"';
  } else {
    line_ += ",\"payload\":null";
  }
  return End();
}

}  // namespace layerstore::tarsplit
