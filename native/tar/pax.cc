#include "tar/pax.h"

#include <limits>
#include <optional>

#include "tar/header.h"

namespace layerstore::tar {
namespace {

constexpr std::string_view kXattrPrefix = "SCHILY.xattr.";
constexpr std::string_view kSparseOffset = "GNU.sparse.offset";
constexpr std::string_view kSparseNumBytes = "GNU.sparse.numbytes";
constexpr std::string_view kSparseMap = "GNU.sparse.map";
constexpr std::string_view kSparseNumBlocks = "GNU.sparse.numblocks";
constexpr std::string_view kSparseName = "GNU.sparse.name";
constexpr std::string_view kSparseMajor = "GNU.sparse.major";
constexpr std::string_view kSparseMinor = "GNU.sparse.minor";
constexpr std::string_view kSparseSize = "GNU.sparse.size";
constexpr std::string_view kSparseRealSize = "GNU.sparse.realsize";

Error Bad(std::string detail) { return DataError(Fault::kBadTar, std::move(detail)); }

bool HasNul(std::string_view text) { return text.find('\0') != std::string_view::npos; }

bool ValidRecord(std::string_view key, std::string_view value) {
  if (key.empty()) return false;
  if (key == "path" || key == "linkpath" || key == "uname" || key == "gname") return !HasNul(value);
  return !HasNul(key);
}

std::string_view Lookup(const PaxRecords& records, std::string_view key) {
  const auto found = records.find(key);
  return found == records.end() ? std::string_view() : std::string_view(found->second);
}

// "seconds[.fraction]", either sign; digits behind the ninth are cut off.
bool ParseTime(std::string_view text, Entry& entry) {
  const size_t dot = text.find('.');
  const std::string_view whole = text.substr(0, dot);
  const std::optional<int64_t> seconds = ParseDecimal(whole);
  if (!seconds.has_value()) return false;
  int64_t nanoseconds = 0;
  if (dot != std::string_view::npos) {
    int64_t unit = 100'000'000;
    for (const char digit : text.substr(dot + 1)) {
      if (digit < '0' || digit > '9') return false;
      nanoseconds += unit * (digit - '0');
      unit /= 10;
    }
  }
  entry.mtime_seconds = *seconds;
  if (nanoseconds > 0 && whole.starts_with('-')) {
    if (*seconds == std::numeric_limits<int64_t>::min()) return false;
    entry.mtime_seconds = *seconds - 1;
    nanoseconds = 1'000'000'000 - nanoseconds;
  }
  entry.mtime_nanoseconds = static_cast<uint32_t>(nanoseconds);
  return true;
}

}  // namespace

Result<PaxRecords> ParsePax(std::string_view text) {
  PaxRecords records;
  std::string sparse_map;
  size_t sparse_numbers = 0;
  while (!text.empty()) {
    const size_t space = text.find(' ');
    if (space == std::string_view::npos) return Bad("PAX record without a length");
    const std::optional<int64_t> length = ParseDecimal(text.substr(0, space));
    if (!length.has_value() || *length < 5 || static_cast<uint64_t>(*length) > text.size() ||
        static_cast<uint64_t>(*length) < space + 2) {
      return Bad("PAX record with a bad length");
    }
    const auto end = static_cast<size_t>(*length);
    if (text[end - 1] != '\n') return Bad("PAX record without an end of line");
    const std::string_view record = text.substr(space + 1, end - space - 2);
    text.remove_prefix(end);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) return Bad("PAX record without a key");
    const std::string_view key = record.substr(0, equals);
    const std::string_view value = record.substr(equals + 1);
    if (!ValidRecord(key, value)) return Bad("PAX record with a bad key or value");
    if (key == kSparseOffset || key == kSparseNumBytes) {
      const std::string_view expected = sparse_numbers % 2 == 0 ? kSparseOffset : kSparseNumBytes;
      if (key != expected || value.find(',') != std::string_view::npos) return Bad("PAX sparse records out of order");
      if (sparse_numbers++ > 0) sparse_map += ',';
      sparse_map += value;
    } else {
      records.insert_or_assign(std::string(key), std::string(value));
    }
  }
  if (sparse_numbers > 0) records.insert_or_assign(std::string(kSparseMap), std::move(sparse_map));
  return records;
}

Result<void> MergePax(const PaxRecords& records, const XattrLimits& limits, Entry& entry) {
  uint64_t xattr_bytes = 0;
  for (const auto& [key, value] : records) {
    // An xattr may be empty; of the others an empty value leaves the header's.
    if (value.empty() && !key.starts_with(kXattrPrefix)) continue;
    if (key == "path") {
      entry.name = value;
    } else if (key == "linkpath") {
      entry.link_name = value;
    } else if (key == "mtime") {
      if (!ParseTime(value, entry)) return Bad("PAX record mtime");
    } else if (key == "atime" || key == "ctime") {
      Entry unused;
      if (!ParseTime(value, unused)) return Bad("PAX record " + key);
    } else if (key == "uid" || key == "gid" || key == "size") {
      const std::optional<int64_t> number = ParseDecimal(value);
      if (!number.has_value()) return Bad("PAX record " + key);
      if (key == "uid") entry.uid = *number;
      if (key == "gid") entry.gid = *number;
      if (key != "size") continue;
      if (*number < 0 && !IsHeaderOnly(entry.type)) return Bad("PAX record size is negative");
      entry.size = *number < 0 ? 0 : static_cast<uint64_t>(*number);
    } else if (key.starts_with(kXattrPrefix)) {
      xattr_bytes += key.size() - kXattrPrefix.size() + value.size();
      if (entry.xattrs.size() >= limits.max_count) return DataError(Fault::kLimit, "maxXattrs", entry.name);
      if (xattr_bytes > limits.max_bytes) return DataError(Fault::kLimit, "maxXattrBytes", entry.name);
      entry.xattrs.emplace_back(key.substr(kXattrPrefix.size()), value);
    }
  }
  return {};
}

Result<PaxSparse> MergePaxSparse(const PaxRecords& records, Entry& entry) {
  const std::string_view major = Lookup(records, kSparseMajor);
  const std::string_view minor = Lookup(records, kSparseMinor);
  PaxSparse sparse = PaxSparse::kMapInRecords;
  if (major == "1" && minor == "0") {
    sparse = PaxSparse::kMapInData;
  } else if (!(major == "0" && (minor == "0" || minor == "1"))) {
    // A version nobody knows is a plain file; no version at all is 0.0 or 0.1 where there is a map.
    if (!major.empty() || !minor.empty() || Lookup(records, kSparseMap).empty()) return PaxSparse::kNone;
  }
  if (const std::string_view name = Lookup(records, kSparseName); !name.empty()) entry.name = name;
  std::string_view size = Lookup(records, kSparseSize);
  if (size.empty()) size = Lookup(records, kSparseRealSize);
  if (!size.empty()) {
    const std::optional<int64_t> number = ParseDecimal(size);
    if (!number.has_value() || *number < 0) return Bad("PAX record GNU.sparse.size");
    entry.size = static_cast<uint64_t>(*number);
  }
  return sparse;
}

Result<std::vector<SparseRegion>> ParseSparseMap(const PaxRecords& records) {
  const std::optional<int64_t> count = ParseDecimal(Lookup(records, kSparseNumBlocks));
  if (!count.has_value() || *count < 0) return Bad("PAX record GNU.sparse.numblocks");
  std::vector<SparseRegion> regions;
  std::string_view map = Lookup(records, kSparseMap);
  // The map lies in a header of bounded size, so its text bounds the work whatever numblocks says.
  uint64_t numbers = 0;
  for (bool more = !map.empty(); more; numbers++) {
    const size_t comma = map.find(',');
    const std::optional<int64_t> number = ParseDecimal(map.substr(0, comma));
    if (!number.has_value() || *number < 0) return Bad("PAX record GNU.sparse.map");
    if (numbers % 2 == 0) {
      regions.push_back({static_cast<uint64_t>(*number), 0});
    } else {
      regions.back().length = static_cast<uint64_t>(*number);
    }
    more = comma != std::string_view::npos;
    if (more) map.remove_prefix(comma + 1);
  }
  if (numbers % 2 != 0 || numbers / 2 != static_cast<uint64_t>(*count)) return Bad("PAX record GNU.sparse.map");
  return regions;
}

Result<void> CheckSparse(const std::vector<SparseRegion>& regions, uint64_t size, uint64_t data_size) {
  constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  uint64_t end = 0;
  uint64_t data = 0;
  for (const SparseRegion& region : regions) {
    if (region.offset > kMax || region.length > kMax - region.offset || region.offset + region.length > size ||
        region.offset < end) {
      return Bad("sparse map out of order or beyond the file's size");
    }
    end = region.offset + region.length;
    data += region.length;
  }
  if (data != data_size) return Bad("sparse map and data differ in size");
  return {};
}

}  // namespace layerstore::tar
