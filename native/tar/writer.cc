#include "tar/writer.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

namespace layerstore::tar {
namespace {

constexpr size_t kNameBytes = 100;
constexpr uint64_t kMaxOctal7 = 07777777;
constexpr uint64_t kMaxOctal11 = 077777777777;
constexpr std::string_view kPaxName = "PaxHeader";

// Where the fields of a header block lie.
struct Field {
  size_t offset;
  size_t size;
};
constexpr Field kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12}, kMtime{136, 12}, kChecksum{148, 8};
constexpr Field kLinkName{157, 100}, kDevMajor{329, 8}, kDevMinor{337, 8};
constexpr size_t kTypeFlag = 156;
constexpr size_t kMagic = 257;

void PutOctal(char* block, const Field& field, uint64_t value) {
  char* at = block + field.offset + field.size - 1;
  *at = 0;
  for (size_t i = 1; i < field.size; i++, value >>= 3) *--at = static_cast<char>('0' + (value & 7));
}

void PutText(char* block, const Field& field, std::string_view text) {
  if (!text.empty()) std::memcpy(block + field.offset, text.data(), std::min(text.size(), field.size));
}

// The fields as they stand in the block: what does not fit is 0 there and in a PAX record.
struct RawHeader {
  std::string_view name;
  std::string_view link_name;
  char type = '0';
  uint64_t mode = 0, uid = 0, gid = 0, size = 0, mtime = 0, major = 0, minor = 0;
};

void AppendBlock(const RawHeader& raw, std::string& out) {
  const size_t start = out.size();
  out.resize(start + kBlockBytes, '\0');
  char* block = out.data() + start;
  PutText(block, {0, kNameBytes}, raw.name);
  PutOctal(block, kMode, raw.mode);
  PutOctal(block, kUid, raw.uid);
  PutOctal(block, kGid, raw.gid);
  PutOctal(block, kSize, raw.size);
  PutOctal(block, kMtime, raw.mtime);
  block[kTypeFlag] = raw.type;
  PutText(block, kLinkName, raw.link_name);
  std::memcpy(block + kMagic, "ustar\00000", 8);
  PutOctal(block, kDevMajor, raw.major);
  PutOctal(block, kDevMinor, raw.minor);
  std::memset(block + kChecksum.offset, ' ', kChecksum.size);
  uint64_t sum = 0;
  for (size_t i = 0; i < kBlockBytes; i++) sum += static_cast<uint8_t>(block[i]);
  PutOctal(block, {kChecksum.offset, kChecksum.size - 1}, sum);
}

struct PaxRecord {
  std::string key;
  std::string value;
};

// "LENGTH key=value\n"; LENGTH counts its own digits.
void AppendRecord(const PaxRecord& record, std::string& out) {
  const size_t rest = record.key.size() + record.value.size() + 3;
  size_t length = rest + std::to_string(rest).size();
  length = rest + std::to_string(length).size();
  out += std::to_string(length);
  out += ' ';
  out += record.key;
  out += '=';
  out += record.value;
  out += '\n';
}

// Seconds as a decimal number, nanoseconds without zeros at the end.
std::string FormatTime(int64_t seconds, uint32_t nanoseconds) {
  if (nanoseconds == 0) return std::to_string(seconds);
  const bool negative = seconds < 0;
  if (negative) {
    // The fraction counts upwards from the whole second below.
    seconds = -(seconds + 1);
    nanoseconds = 1000000000 - nanoseconds;
  }
  std::string fraction = std::to_string(nanoseconds);
  fraction.insert(0, 9 - fraction.size(), '0');
  fraction.erase(fraction.find_last_not_of('0') + 1);
  std::string text = negative ? "-" : "";
  text += std::to_string(seconds);
  text += '.';
  text += fraction;
  return text;
}

void AppendPaxHeader(std::vector<PaxRecord>& records, std::string& out) {
  std::sort(records.begin(), records.end(), [](const PaxRecord& a, const PaxRecord& b) { return a.key < b.key; });
  std::string body;
  for (const PaxRecord& record : records) AppendRecord(record, body);
  RawHeader raw;
  raw.name = kPaxName;
  raw.type = static_cast<char>(Type::kPaxLocal);
  raw.mode = 0644;
  raw.size = body.size();
  AppendBlock(raw, out);
  out += body;
  out.append(Padding(body.size()), '\0');
}

}  // namespace

std::string SparseMap(const Entry& entry) {
  std::string map = std::to_string(entry.regions.size()) + "\n";
  for (const SparseRegion& region : entry.regions) {
    map += std::to_string(region.offset) + "\n" + std::to_string(region.length) + "\n";
  }
  map.append(Padding(map.size()), '\0');
  return map;
}

Result<void> AppendHeader(const Entry& entry, std::string& out) {
  std::vector<PaxRecord> records;
  RawHeader raw;
  raw.name = entry.name;
  raw.link_name = entry.link_name;
  raw.type = static_cast<char>(entry.type);
  raw.mode = static_cast<uint64_t>(entry.mode) & 07777;
  raw.major = static_cast<uint64_t>(entry.device_major);
  raw.minor = static_cast<uint64_t>(entry.device_minor);

  std::string map;
  uint64_t size = entry.type == Type::kRegular ? entry.size : 0;
  if (entry.sparse) {
    map = SparseMap(entry);
    records.push_back({"GNU.sparse.major", "1"});
    records.push_back({"GNU.sparse.minor", "0"});
    records.push_back({"GNU.sparse.name", entry.name});
    records.push_back({"GNU.sparse.realsize", std::to_string(entry.size)});
    size = std::accumulate(entry.regions.begin(), entry.regions.end(), uint64_t{map.size()},
                           [](uint64_t sum, const SparseRegion& region) { return sum + region.length; });
  } else if (entry.name.size() > kNameBytes) {
    records.push_back({"path", entry.name});
  }
  if (entry.link_name.size() > kNameBytes) records.push_back({"linkpath", entry.link_name});

  const auto number = [&](const char* key, uint64_t value, uint64_t most) {
    if (value <= most) return value;
    records.push_back({key, std::to_string(value)});
    return uint64_t{0};
  };
  raw.size = number("size", size, kMaxOctal11);
  raw.uid = number("uid", static_cast<uint64_t>(entry.uid), kMaxOctal7);
  raw.gid = number("gid", static_cast<uint64_t>(entry.gid), kMaxOctal7);

  const bool fits = entry.mtime_seconds >= 0 && static_cast<uint64_t>(entry.mtime_seconds) <= kMaxOctal11;
  raw.mtime = fits ? static_cast<uint64_t>(entry.mtime_seconds) : 0;
  if (!fits || entry.mtime_nanoseconds != 0)
    records.push_back({"mtime", FormatTime(entry.mtime_seconds, entry.mtime_nanoseconds)});

  for (const auto& [name, value] : entry.xattrs) {
    if (name.find('=') != std::string::npos) {
      return DataError(Fault::kNotSupported, "the xattr \"" + name + "\" has no form in a tar", entry.name);
    }
    records.push_back({"SCHILY.xattr." + name, value});
  }

  if (!records.empty()) AppendPaxHeader(records, out);
  AppendBlock(raw, out);
  out += map;
  return {};
}

}  // namespace layerstore::tar
