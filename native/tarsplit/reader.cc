#include "tarsplit/reader.h"

#include <array>
#include <cstring>
#include <optional>
#include <utility>

namespace layerstore::tarsplit {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;
constexpr uint8_t kBad = 0xFF;

constexpr std::array<uint8_t, 256> MakeBase64Table() {
  std::array<uint8_t, 256> table{};
  for (auto& value : table) value = kBad;
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kAlphabet.size(); i++) table[static_cast<uint8_t>(kAlphabet[i])] = static_cast<uint8_t>(i);
  return table;
}
constexpr std::array<uint8_t, 256> kBase64 = MakeBase64Table();

// Standard alphabet, padded, no white space.
template <typename Bytes>
bool DecodeBase64(std::string_view text, Bytes& out) {
  out.clear();
  if (text.size() % 4 != 0) return false;
  if (text.empty()) return true;
  size_t padding = 0;
  if (text.back() == '=') padding = text[text.size() - 2] == '=' ? 2 : 1;
  out.resize(text.size() / 4 * 3 - padding);
  const auto* in = reinterpret_cast<const uint8_t*>(text.data());
  auto* to = reinterpret_cast<uint8_t*>(out.data());
  const size_t whole = text.size() / 4 - (padding > 0 ? 1 : 0);
  uint8_t seen = 0;
  for (size_t i = 0; i < whole; i++, in += 4, to += 3) {
    const uint8_t a = kBase64[in[0]];
    const uint8_t b = kBase64[in[1]];
    const uint8_t c = kBase64[in[2]];
    const uint8_t d = kBase64[in[3]];
    seen = static_cast<uint8_t>(seen | a | b | c | d);
    to[0] = static_cast<uint8_t>(a << 2 | b >> 4);
    to[1] = static_cast<uint8_t>(b << 4 | c >> 2);
    to[2] = static_cast<uint8_t>(c << 6 | d);
  }
  if (padding > 0) {
    const uint8_t a = kBase64[in[0]];
    const uint8_t b = kBase64[in[1]];
    seen = static_cast<uint8_t>(seen | a | b);
    to[0] = static_cast<uint8_t>(a << 2 | b >> 4);
    if (padding == 1) {
      const uint8_t c = kBase64[in[2]];
      seen = static_cast<uint8_t>(seen | c);
      to[1] = static_cast<uint8_t>(b << 4 | c >> 2);
    }
  }
  return (seen & 0xC0) == 0;
}

void AppendUtf8(std::string& out, uint32_t rune) {
  if (rune < 0x80) {
    out.push_back(static_cast<char>(rune));
  } else if (rune < 0x800) {
    out.push_back(static_cast<char>(0xC0 | rune >> 6));
    out.push_back(static_cast<char>(0x80 | (rune & 0x3F)));
  } else if (rune < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | rune >> 12));
    out.push_back(static_cast<char>(0x80 | (rune >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (rune & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | rune >> 18));
    out.push_back(static_cast<char>(0x80 | (rune >> 12 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (rune >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (rune & 0x3F)));
  }
}

// A cursor over one line: exactly the JSON that a record's line may be, a flat object of scalars. `bad` stays set.
class LineParser {
 public:
  explicit LineParser(std::string_view line) : rest_(line) {}

  [[nodiscard]] bool bad() const { return bad_; }
  [[nodiscard]] bool AtEnd() {
    SkipBlank();
    return rest_.empty();
  }
  bool Take(char wanted) {
    SkipBlank();
    if (rest_.empty() || rest_.front() != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void Expect(char wanted) {
    if (!Take(wanted)) bad_ = true;
  }
  bool TakeWord(std::string_view word) {
    SkipBlank();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  // A string without escapes is a view into the line; else it is decoded into `storage`.
  std::string_view String(std::string& storage) {
    Expect('"');
    if (bad_) return {};
    const size_t stop = rest_.find_first_of("\"\\");
    if (stop == std::string_view::npos) return Fail();
    if (rest_[stop] == '"') {
      const std::string_view plain = rest_.substr(0, stop);
      rest_.remove_prefix(stop + 1);
      return plain;
    }
    storage.clear();
    while (!bad_) {
      const size_t next = rest_.find_first_of("\"\\");
      if (next == std::string_view::npos) return Fail();
      storage.append(rest_.substr(0, next));
      const bool end = rest_[next] == '"';
      rest_.remove_prefix(next + 1);
      if (end) return storage;
      Escape(storage);
    }
    return {};
  }

  uint64_t Unsigned() {
    SkipBlank();
    size_t digits = 0;
    uint64_t value = 0;
    // 19 digits always fit; sizes and positions are signed 64-bit numbers where they come from.
    while (digits < rest_.size() && digits < 20 && rest_[digits] >= '0' && rest_[digits] <= '9') {
      value = value * 10 + static_cast<uint64_t>(rest_[digits++] - '0');
    }
    if (digits == 0 || digits == 20 || value > static_cast<uint64_t>(INT64_MAX) || (digits > 1 && rest_[0] == '0'))
      bad_ = true;
    rest_.remove_prefix(digits);
    return value;
  }

  // A value of a key that is not ours: any scalar.
  void SkipScalar(std::string& storage) {
    SkipBlank();
    if (!rest_.empty() && rest_.front() == '"') {
      (void)String(storage);
      return;
    }
    size_t length = 0;
    while (length < rest_.size() && std::strchr("+-.0123456789eE", rest_[length]) != nullptr && rest_[length] != 0)
      length++;
    if (length > 0) {
      rest_.remove_prefix(length);
    } else if (!TakeWord("null") && !TakeWord("true") && !TakeWord("false")) {
      bad_ = true;
    }
  }

 private:
  std::string_view Fail() {
    bad_ = true;
    return {};
  }
  void SkipBlank() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t' || rest_.front() == '\r'))
      rest_.remove_prefix(1);
  }
  std::optional<uint32_t> Hex4() {
    if (rest_.size() < 4) return std::nullopt;
    uint32_t value = 0;
    for (size_t i = 0; i < 4; i++) {
      const char digit = rest_[i];
      uint32_t part = 0;
      if (digit >= '0' && digit <= '9')
        part = static_cast<uint32_t>(digit - '0');
      else if (digit >= 'a' && digit <= 'f')
        part = static_cast<uint32_t>(digit - 'a' + 10);
      else if (digit >= 'A' && digit <= 'F')
        part = static_cast<uint32_t>(digit - 'A' + 10);
      else
        return std::nullopt;
      value = value << 4 | part;
    }
    rest_.remove_prefix(4);
    return value;
  }
  void Escape(std::string& out) {
    if (rest_.empty()) {
      bad_ = true;
      return;
    }
    const char kind = rest_.front();
    rest_.remove_prefix(1);
    switch (kind) {
      case '"':
      case '\\':
      case '/':
        out.push_back(kind);
        return;
      case 'b':
        out.push_back('\b');
        return;
      case 'f':
        out.push_back('\f');
        return;
      case 'n':
        out.push_back('\n');
        return;
      case 'r':
        out.push_back('\r');
        return;
      case 't':
        out.push_back('\t');
        return;
      case 'u':
        break;
      default:
        bad_ = true;
        return;
    }
    std::optional<uint32_t> rune = Hex4();
    if (!rune) {
      bad_ = true;
      return;
    }
    if (*rune >= 0xD800 && *rune < 0xDC00 && rest_.starts_with("\\u")) {
      rest_.remove_prefix(2);
      const std::optional<uint32_t> low = Hex4();
      if (!low || *low < 0xDC00 || *low > 0xDFFF) {
        bad_ = true;
        return;
      }
      rune = 0x10000 + ((*rune - 0xD800) << 10) + (*low - 0xDC00);
    } else if (*rune >= 0xD800 && *rune <= 0xDFFF) {
      bad_ = true;
      return;
    }
    AppendUtf8(out, *rune);
  }

  std::string_view rest_;
  bool bad_ = false;
};

Error BadLine(const char* detail, const Entry& entry) {
  return DataError(Fault::kCorrupt, detail, entry.name, entry.offset);
}

Result<void> ParseLine(std::string_view line, Entry& entry) {
  LineParser parser(line);
  std::string key_storage;
  std::string value_storage;
  std::string payload_storage;
  std::string_view payload;
  bool have_type = false;
  bool have_payload = false;
  bool have_raw_name = false;
  uint64_t type = 0;
  parser.Expect('{');
  if (!parser.bad() && !parser.Take('}')) {
    do {
      const std::string_view key = parser.String(key_storage);
      parser.Expect(':');
      if (parser.bad()) break;
      if (key == "type") {
        type = parser.Unsigned();
        have_type = true;
      } else if (key == "name") {
        const std::string_view name = parser.String(value_storage);
        if (!have_raw_name) entry.name = name;
      } else if (key == "name_raw") {
        if (parser.TakeWord("null")) continue;
        const std::string_view raw = parser.String(value_storage);
        if (parser.bad()) break;
        if (raw.empty()) continue;
        std::string name;
        if (!DecodeBase64(raw, name)) return BadLine("tar-split name_raw is not base64", entry);
        entry.name = std::move(name);
        have_raw_name = true;
      } else if (key == "size") {
        entry.size = parser.Unsigned();
      } else if (key == "payload") {
        payload = parser.TakeWord("null") ? std::string_view{} : parser.String(payload_storage);
        have_payload = true;
      } else if (key == "position") {
        entry.position = parser.Unsigned();
      } else {
        parser.SkipScalar(value_storage);
      }
    } while (!parser.bad() && parser.Take(','));
    parser.Expect('}');
  }
  if (parser.bad() || !parser.AtEnd()) return BadLine("tar-split line is not an entry", entry);
  if (!have_type || (type != 1 && type != 2)) return BadLine("tar-split entry of an unknown type", entry);
  if (!have_payload) payload = {};
  if (type == 2) {
    entry.type = Entry::Type::kSegment;
    if (!DecodeBase64(payload, entry.segment)) return BadLine("tar-split payload is not base64", entry);
    return {};
  }
  entry.type = Entry::Type::kFile;
  if (entry.size == 0) return {};
  std::array<uint8_t, 8> sum{};
  std::string bytes;
  if (!DecodeBase64(payload, bytes) || bytes.size() != sum.size())
    return BadLine("tar-split checksum is not eight bytes", entry);
  std::memcpy(sum.data(), bytes.data(), sum.size());
  for (const uint8_t byte : sum) entry.crc = entry.crc << 8 | byte;
  return {};
}

}  // namespace

Reader::Reader(ByteSource& source) : source_(source), buffer_(kReadBytes) {}

// One line without its newline; the last one may lack it. False at the end.
Result<bool> Reader::ReadLine(std::string_view& line) {
  size_t scanned = 0;
  for (;;) {
    const char* from = buffer_.data() + begin_;
    if (const void* found = std::memchr(from + scanned, '\n', end_ - begin_ - scanned)) {
      const size_t length = static_cast<size_t>(static_cast<const char*>(found) - from);
      line = std::string_view(from, length);
      begin_ += length + 1;
      offset_ += length + 1;
      return true;
    }
    scanned = end_ - begin_;
    if (source_ended_) {
      if (scanned == 0) return false;
      line = std::string_view(from, scanned);
      begin_ = end_;
      offset_ += scanned;
      return true;
    }
    if (scanned >= kMaxLineBytes) return DataError(Fault::kCorrupt, "tar-split line is too long", {}, offset_);
    if (begin_ > 0) {
      std::memmove(buffer_.data(), from, scanned);
      begin_ = 0;
      end_ = scanned;
    }
    if (end_ == buffer_.size()) buffer_.resize(buffer_.size() * 2);
    LS_ASSIGN(const size_t got,
              source_.Read(std::span(reinterpret_cast<uint8_t*>(buffer_.data()) + end_, buffer_.size() - end_)));
    if (got == 0) source_ended_ = true;
    end_ += got;
  }
}

Result<bool> Reader::Next(Entry& entry) {
  std::string_view line;
  for (;;) {
    entry.offset = offset_;
    LS_ASSIGN(const bool more, ReadLine(line));
    if (!more) return false;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) break;
  }
  entry.name.clear();
  entry.segment.clear();
  entry.size = entry.crc = entry.position = 0;
  LS_TRY(ParseLine(line, entry));
  return true;
}

bool CleanEntryName(std::string_view name, std::string& clean) {
  clean.clear();
  const bool absolute = name.starts_with('/');
  if (name.find('\0') != std::string_view::npos) return false;
  while (!name.empty()) {
    const size_t slash = name.find('/');
    const std::string_view part = name.substr(0, slash);
    name.remove_prefix(slash == std::string_view::npos ? name.size() : slash + 1);
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (clean.empty()) {
        if (absolute) continue;
        return false;
      }
      const size_t cut = clean.rfind('/');
      clean.resize(cut == std::string::npos ? 0 : cut);
      continue;
    }
    if (!clean.empty()) clean.push_back('/');
    clean.append(part);
  }
  return !clean.empty();
}

}  // namespace layerstore::tarsplit
