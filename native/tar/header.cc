#include "tar/header.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

namespace layerstore::tar {
namespace {

struct Field {
  size_t offset;
  size_t size;
};
constexpr Field kName = {0, 100};
constexpr Field kMode = {100, 8};
constexpr Field kUid = {108, 8};
constexpr Field kGid = {116, 8};
constexpr Field kSize = {124, 12};
constexpr Field kMtime = {136, 12};
constexpr Field kChecksum = {148, 8};
constexpr size_t kType = 156;
constexpr Field kLinkName = {157, 100};
constexpr Field kMagic = {257, 6};
constexpr Field kVersion = {263, 2};
constexpr Field kDeviceMajor = {329, 8};
constexpr Field kDeviceMinor = {337, 8};
constexpr Field kUstarPrefix = {345, 155};
constexpr Field kStarPrefix = {345, 131};
constexpr Field kStarAtime = {476, 12};
constexpr Field kStarCtime = {488, 12};
constexpr Field kGnuAtime = {345, 12};
constexpr Field kGnuCtime = {357, 12};
constexpr Field kStarTrailer = {508, 4};

std::span<const uint8_t> Get(Block block, Field field) { return block.subspan(field.offset, field.size); }

bool Equals(std::span<const uint8_t> bytes, std::string_view text) {
  return std::equal(bytes.begin(), bytes.end(), text.begin(), text.end(),
                    [](uint8_t left, char right) { return left == static_cast<uint8_t>(right); });
}

std::optional<int64_t> ParseBase256(std::span<const uint8_t> field) {
  const uint8_t invert = (field[0] & 0x40) != 0 ? 0xFF : 0x00;
  uint64_t value = 0;
  for (size_t i = 0; i < field.size(); i++) {
    auto byte = static_cast<uint8_t>(field[i] ^ invert);
    if (i == 0) byte &= 0x7F;  // the mark of base-256
    if ((value >> 56) != 0) return std::nullopt;
    value = value << 8 | byte;
  }
  if ((value >> 63) != 0) return std::nullopt;
  const auto number = static_cast<int64_t>(value);
  return invert != 0 ? ~number : number;
}

std::optional<int64_t> ParseOctal(std::span<const uint8_t> field) {
  const auto blank = [](uint8_t byte) { return byte == ' ' || byte == 0; };
  while (!field.empty() && blank(field.front())) field = field.subspan(1);
  while (!field.empty() && blank(field.back())) field = field.first(field.size() - 1);
  if (field.empty()) return 0;
  uint64_t value = 0;
  for (const uint8_t byte : field) {
    if (byte == 0) break;  // what follows a NUL is not read
    if (byte < '0' || byte > '7' || (value >> 61) != 0) return std::nullopt;
    value = value << 3 | static_cast<uint64_t>(byte - '0');
  }
  return static_cast<int64_t>(value);
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

// GNU headers have times where ustar has the prefix. Archives of early Go versions put a prefix there all the same: it
// is taken when it does not read as times.
std::string GnuPrefix(Block block) {
  for (const Field field : {kGnuAtime, kGnuCtime}) {
    const std::span<const uint8_t> bytes = Get(block, field);
    if (bytes[0] == 0 || ParseNumeric(bytes).has_value()) continue;
    std::string prefix = ParseText(Get(block, kUstarPrefix));
    return IsAscii(prefix) ? prefix : std::string();
  }
  return {};
}

}  // namespace

bool IsZeroBlock(Block block) {
  return std::all_of(block.begin(), block.end(), [](uint8_t byte) { return byte == 0; });
}

std::string_view NameOfForeignFormat(std::span<const uint8_t> bytes) {
  struct Magic {
    std::string_view bytes;
    std::string_view name;
  };
  static constexpr std::array<Magic, 11> kMagics = {{
      {{"\xFD"
        "7zXZ\0",
        6},
       "xz"},
      {"BZh", "bzip2"},
      {"LZIP", "lzip"},
      {"\x1F\x9D", "compress"},
      {"\x1F\xA0", "compress"},
      {{"\x5D\0\0", 3}, "lzma"},
      {"\x04\x22\x4D\x18", "lz4"},
      {"\x89LZO", "lzop"},
      {"LRZI", "lrzip"},
      {"PK\x03\x04", "zip"},
      {"7z\xBC\xAF\x27\x1C", "7z"},
  }};
  for (const Magic& magic : kMagics) {
    if (bytes.size() >= magic.bytes.size() && Equals(bytes.first(magic.bytes.size()), magic.bytes)) return magic.name;
  }
  return {};
}

Format DetectFormat(Block block) {
  const std::optional<int64_t> given = ParseOctal(Get(block, kChecksum));
  if (!given.has_value()) return Format::kUnknown;
  int64_t as_unsigned = 0;
  int64_t as_signed = 0;  // old Sun tars
  for (size_t i = 0; i < kBlockBytes; i++) {
    const bool in_checksum = i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size;
    const uint8_t byte = in_checksum ? uint8_t{' '} : block[i];
    as_unsigned += byte;
    as_signed += static_cast<int8_t>(byte);
  }
  if (*given != as_unsigned && *given != as_signed) return Format::kUnknown;
  const std::span<const uint8_t> magic = Get(block, kMagic);
  if (Equals(magic, {"ustar\0", 6})) {
    return Equals(Get(block, kStarTrailer), {"tar\0", 4}) ? Format::kStar : Format::kUstar;
  }
  if (Equals(magic, "ustar ") && Equals(Get(block, kVersion), {" \0", 2})) return Format::kGnu;
  return Format::kV7;
}

std::optional<int64_t> ParseNumeric(std::span<const uint8_t> field) {
  return !field.empty() && (field[0] & 0x80) != 0 ? ParseBase256(field) : ParseOctal(field);
}

std::string ParseText(std::span<const uint8_t> field) {
  return {field.begin(), std::find(field.begin(), field.end(), uint8_t{0})};
}

std::optional<int64_t> ParseDecimal(std::string_view text) {
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return std::nullopt;
  }
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, failed] = std::from_chars(text.data(), end, value, 10);
  if (failed != std::errc() || stop != end) return std::nullopt;
  return value;
}

bool IsHeaderOnly(Type type) {
  switch (type) {
    case Type::kHardLink:
    case Type::kSymlink:
    case Type::kCharDevice:
    case Type::kBlockDevice:
    case Type::kDirectory:
    case Type::kFifo:
      return true;
    default:
      return false;
  }
}

Result<void> ParseHeaderBlock(Block block, Format format, Entry& entry) {
  struct Number {
    Field field;
    const char* what;
    int64_t* target;
  };
  int64_t size = 0;
  int64_t unused = 0;
  const Number common[] = {
      {kMode, "mode", &entry.mode},
      {kUid, "uid", &entry.uid},
      {kGid, "gid", &entry.gid},
      {kSize, "size", &size},
      {kMtime, "mtime", &entry.mtime_seconds},
  };
  const Number newer[] = {{kDeviceMajor, "devmajor", &entry.device_major},
                          {kDeviceMinor, "devminor", &entry.device_minor}};
  const Number star[] = {{kStarAtime, "atime", &unused}, {kStarCtime, "ctime", &unused}};
  const auto parse = [&](std::span<const Number> numbers) -> Result<void> {
    for (const Number& number : numbers) {
      const std::optional<int64_t> value = ParseNumeric(Get(block, number.field));
      if (!value.has_value()) return DataError(Fault::kBadTar, std::string("header field ") + number.what);
      *number.target = *value;
    }
    return {};
  };
  LS_TRY(parse(common));
  if (format != Format::kV7) LS_TRY(parse(newer));
  if (format == Format::kStar) LS_TRY(parse(star));
  entry.type = static_cast<Type>(block[kType]);
  entry.link_name = ParseText(Get(block, kLinkName));
  entry.name = ParseText(Get(block, kName));
  std::string prefix;
  if (format == Format::kUstar) prefix = ParseText(Get(block, kUstarPrefix));
  if (format == Format::kStar) prefix = ParseText(Get(block, kStarPrefix));
  if (format == Format::kGnu) prefix = GnuPrefix(block);
  if (!prefix.empty()) entry.name = prefix + "/" + entry.name;
  // A header without data may carry any size: nobody reads it.
  if (size < 0 && !IsHeaderOnly(entry.type)) return DataError(Fault::kBadTar, "header field size is negative");
  entry.size = size < 0 ? 0 : static_cast<uint64_t>(size);
  return {};
}

}  // namespace layerstore::tar
