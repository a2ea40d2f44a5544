#include "tar/reader.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "tar/header.h"

namespace layerstore::tar {
namespace {

constexpr size_t kGnuSparseArray = 386;
constexpr size_t kGnuSparseEntries = 4;
constexpr size_t kGnuSparseExtended = 482;
constexpr size_t kGnuRealSize = 483;
constexpr size_t kGnuNumber = 12;
constexpr size_t kExtensionEntries = 21;
constexpr size_t kExtensionExtended = 504;

}  // namespace

Error Reader::Bad(std::string detail, const std::string& path) const {
  return DataError(Fault::kBadTar, std::move(detail), path, offset_);
}

// At the very start another format may say what the source is.
Error Reader::NoHeader(std::span<const uint8_t> bytes, const char* detail) const {
  const std::string_view format = offset_ <= kBlockBytes ? NameOfForeignFormat(bytes) : std::string_view();
  if (format.empty()) return Bad(detail);
  return DataError(Fault::kBadCompression,
                   "the source is " + std::string(format) +
                       " data, which is not supported: give a tar, plain or compressed with gzip or zstd");
}

Result<void> Reader::AddRaw(std::span<const uint8_t> bytes) {
  header_bytes_ += bytes.size();
  // Room for the header itself and the padding before it comes on top.
  if (header_bytes_ > limits_.max_header_bytes && header_bytes_ - limits_.max_header_bytes > 4 * kBlockBytes) {
    return DataError(Fault::kLimit, "maxHeaderBytes", {}, offset_);
  }
  raw_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return {};
}

// False: the input ended exactly here, which `may_end` allows.
Result<bool> Reader::ReadBlock(uint8_t* block, bool may_end) {
  size_t have = 0;
  while (have < kBlockBytes) {
    LS_ASSIGN(const std::span<const uint8_t> bytes, input_.Take(kBlockBytes - have));
    if (bytes.empty()) {
      if (have == 0 && may_end) return false;
      return NoHeader({block, have}, "the tar ends inside a header");
    }
    std::memcpy(block + have, bytes.data(), bytes.size());
    have += bytes.size();
    offset_ += bytes.size();
  }
  LS_TRY(AddRaw({block, kBlockBytes}));
  return true;
}

Result<std::span<const uint8_t>> Reader::ReadData(size_t max) {
  if (data_left_ == 0) return std::span<const uint8_t>();
  LS_ASSIGN(const std::span<const uint8_t> bytes,
            input_.Take(static_cast<size_t>(std::min<uint64_t>(max, data_left_))));
  if (bytes.empty()) return Bad("the tar ends inside a file");
  data_left_ -= bytes.size();
  offset_ += bytes.size();
  return bytes;
}

Result<std::span<const uint8_t>> Reader::ReadTrailing(size_t max) {
  LS_ASSIGN(const std::span<const uint8_t> bytes, input_.Take(max));
  offset_ += bytes.size();
  return bytes;
}

// The input may end in the padding: the file is whole.
Result<void> Reader::SkipPadding() {
  while (padding_ > 0) {
    LS_ASSIGN(const std::span<const uint8_t> bytes, input_.Take(padding_));
    if (bytes.empty()) {
      ended_ = true;
      padding_ = 0;
      break;
    }
    padding_ -= bytes.size();
    offset_ += bytes.size();
    LS_TRY(AddRaw(bytes));
  }
  return {};
}

// The data of an extension header.
Result<std::string> Reader::ReadSpecial(uint64_t size) {
  if (size > limits_.max_header_bytes) return DataError(Fault::kLimit, "maxHeaderBytes", {}, offset_);
  std::string text;
  text.reserve(static_cast<size_t>(size));
  data_left_ = size;
  while (data_left_ > 0) {
    LS_ASSIGN(const std::span<const uint8_t> bytes, ReadData(SIZE_MAX));
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    LS_TRY(AddRaw(bytes));
  }
  return text;
}

void Reader::SetData(const Entry& entry) {
  data_left_ = IsHeaderOnly(entry.type) ? 0 : entry.size;
  padding_ = static_cast<size_t>((kBlockBytes - data_left_ % kBlockBytes) % kBlockBytes);
}

Result<Reader::Step> Reader::Next(Entry& entry) {
  header_bytes_ = 0;
  while (data_left_ > 0) {
    LS_ASSIGN(const std::span<const uint8_t> bytes, ReadData(SIZE_MAX));
    LS_TRY(AddRaw(bytes));
  }
  pax_.clear();
  gnu_name_.clear();
  gnu_link_.clear();
  std::array<uint8_t, kBlockBytes> block;
  while (true) {
    LS_TRY(SkipPadding());
    if (ended_) return Step::kEnd;
    LS_ASSIGN(const bool there, ReadBlock(block.data(), true));
    if (there && IsZeroBlock(block)) {
      LS_ASSIGN(const bool second, ReadBlock(block.data(), true));
      if (second && !IsZeroBlock(block)) return Bad("a header follows a zero block");
      ended_ = true;
    }
    if (!there || ended_) {
      ended_ = true;
      return Step::kEnd;
    }
    const Format format = DetectFormat(block);
    if (format == Format::kUnknown) return NoHeader(block, "header checksum");
    entry = Entry();
    if (auto parsed = ParseHeaderBlock(block, format, entry); !parsed.ok()) {
      parsed.error().offset = offset_;
      return parsed.error();
    }
    SetData(entry);
    switch (entry.type) {
      case Type::kPaxLocal:
      case Type::kPaxGlobal: {
        LS_ASSIGN(const std::string text, ReadSpecial(entry.size));
        auto records = ParsePax(text);
        if (!records.ok()) {
          records.error().offset = offset_;
          return records.error();
        }
        if (entry.type == Type::kPaxGlobal) return Step::kGlobal;
        pax_ = std::move(*records);
        continue;
      }
      case Type::kGnuLongName:
      case Type::kGnuLongLink: {
        LS_ASSIGN(std::string text, ReadSpecial(entry.size));
        text.resize(std::min(text.size(), text.find('\0')));
        (entry.type == Type::kGnuLongName ? gnu_name_ : gnu_link_) = std::move(text);
        continue;
      }
      default:
        break;
    }
    auto finished = Finish(block, format == Format::kGnu, entry);
    if (!finished.ok()) {
      if (finished.error().path.empty()) finished.error().path = entry.name;
      finished.error().offset = offset_;
      return finished.error();
    }
    return Step::kEntry;
  }
}

Result<void> Reader::Finish(std::span<const uint8_t, kBlockBytes> header, bool gnu, Entry& entry) {
  LS_TRY(MergePax(pax_, limits_.xattrs, entry));
  if (!gnu_name_.empty()) entry.name = gnu_name_;
  if (!gnu_link_.empty()) entry.link_name = gnu_link_;
  if (static_cast<char>(entry.type) == '\0') {
    entry.type = entry.name.ends_with('/') ? Type::kDirectory : Type::kRegular;
  }
  SetData(entry);
  if (entry.type == Type::kGnuSparse) {
    if (!gnu) return Bad("sparse header in a format that has none");
    LS_TRY(ReadGnuSparse(header, entry));
  } else {
    LS_ASSIGN(const PaxSparse sparse, MergePaxSparse(pax_, entry));
    entry.sparse = sparse != PaxSparse::kNone;
    if (sparse == PaxSparse::kMapInData) LS_TRY(ReadSparseMapInData(entry));
    if (sparse == PaxSparse::kMapInRecords) {
      LS_ASSIGN(entry.regions, ParseSparseMap(pax_));
    }
  }
  if (entry.sparse) {
    if (IsHeaderOnly(entry.type)) return Bad("sparse map on an entry without data");
    LS_TRY(CheckSparse(entry.regions, entry.size, data_left_));
    entry.type = Type::kRegular;
  }
  entry.data_size = data_left_;
  return {};
}

Result<void> Reader::ReadGnuSparse(std::span<const uint8_t, kBlockBytes> header, Entry& entry) {
  const std::optional<int64_t> size = ParseNumeric(header.subspan(kGnuRealSize, kGnuNumber));
  if (!size.has_value() || *size < 0) return Bad("header field realsize");
  entry.sparse = true;
  entry.size = static_cast<uint64_t>(*size);
  std::array<uint8_t, kBlockBytes> block;
  std::span<const uint8_t> array = std::span<const uint8_t>(header).subspan(kGnuSparseArray);
  size_t entries = kGnuSparseEntries;
  bool extended = header[kGnuSparseExtended] != 0;
  while (true) {
    for (size_t i = 0; i < entries; i++) {
      const std::span<const uint8_t> pair = array.subspan(i * 2 * kGnuNumber, 2 * kGnuNumber);
      if (pair[0] == 0) break;
      const std::optional<int64_t> offset = ParseNumeric(pair.first(kGnuNumber));
      const std::optional<int64_t> length = ParseNumeric(pair.subspan(kGnuNumber));
      if (!offset.has_value() || !length.has_value() || *offset < 0 || *length < 0) return Bad("GNU sparse map");
      entry.regions.push_back({static_cast<uint64_t>(*offset), static_cast<uint64_t>(*length)});
    }
    if (!extended) return {};
    LS_ASSIGN(const bool there, ReadBlock(block.data(), false));
    if (!there) return Bad("the tar ends inside a header");
    array = block;
    entries = kExtensionEntries;
    extended = block[kExtensionExtended] != 0;
  }
}

// Format 1.0: decimal lines in front of the data, filled up to whole blocks.
Result<void> Reader::ReadSparseMapInData(Entry& entry) {
  std::string text;
  size_t at = 0;
  const auto next_number = [&]() -> Result<uint64_t> {
    size_t line = text.find('\n', at);
    while (line == std::string::npos) {
      if (data_left_ < kBlockBytes) return Bad("sparse map beyond the data");
      const size_t from = text.size();
      const uint64_t target = data_left_ - kBlockBytes;
      while (data_left_ > target) {
        LS_ASSIGN(const std::span<const uint8_t> bytes, ReadData(static_cast<size_t>(data_left_ - target)));
        text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        LS_TRY(AddRaw(bytes));
      }
      line = text.find('\n', from);
    }
    const std::optional<int64_t> number = ParseDecimal(std::string_view(text).substr(at, line - at));
    if (!number.has_value() || *number < 0) return Bad("sparse map in the data");
    at = line + 1;
    return static_cast<uint64_t>(*number);
  };
  LS_ASSIGN(const uint64_t count, next_number());
  for (uint64_t i = 0; i < count; i++) {
    LS_ASSIGN(const uint64_t offset, next_number());
    LS_ASSIGN(const uint64_t length, next_number());
    entry.regions.push_back({offset, length});
  }
  return {};
}

}  // namespace layerstore::tar
