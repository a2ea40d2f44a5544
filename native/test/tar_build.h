// Tars made by hand for the tests: header blocks with any field, PAX records, padding.
#pragma once

#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace layerstore::test {

struct Member {
  std::string name = {};
  char type = '0';
  std::string data = {};
  std::string link = {};
  unsigned mode = 0644;
  unsigned uid = 0;
  unsigned gid = 0;
  long mtime = 1700000000;
  unsigned major = 0;
  unsigned minor = 0;
  long long size = -1;  // -1: that of data
  std::vector<std::pair<std::string, std::string>> pax = {};
  std::string magic = std::string(
      "ustar\0"
      "00",
      8);
};

inline void Octal(std::string& block, size_t at, size_t width, unsigned long long value) {
  char text[32];
  std::snprintf(text, sizeof text, "%0*llo", static_cast<int>(width - 1), value);
  std::memcpy(&block[at], text, width - 1);
}

inline void SetChecksum(std::string& block) {
  std::memset(&block[148], ' ', 8);
  unsigned sum = 0;
  for (size_t i = 0; i < 512; i++) sum += static_cast<unsigned char>(block[i]);
  char text[16];
  std::snprintf(text, sizeof text, "%06o", sum);
  std::memcpy(&block[148], text, 7);
}

inline std::string Pad(std::string data) {
  data.resize((data.size() + 511) / 512 * 512);
  return data;
}

inline std::string Header(const Member& member, size_t size) {
  std::string block(512, '\0');
  std::memcpy(block.data(), member.name.data(), std::min<size_t>(member.name.size(), 100));
  Octal(block, 100, 8, member.mode);
  Octal(block, 108, 8, member.uid);
  Octal(block, 116, 8, member.gid);
  Octal(block, 124, 12, size);
  Octal(block, 136, 12, static_cast<unsigned long long>(member.mtime));
  block[156] = member.type;
  std::memcpy(&block[157], member.link.data(), std::min<size_t>(member.link.size(), 100));
  std::memcpy(&block[257], member.magic.data(), 8);
  Octal(block, 329, 8, member.major);
  Octal(block, 337, 8, member.minor);
  SetChecksum(block);
  return block;
}

inline std::string PaxRecord(const std::string& key, const std::string& value) {
  const std::string rest = " " + key + "=" + value + "\n";
  size_t size = rest.size() + 1;
  while (std::to_string(size).size() + rest.size() != size) size++;
  return std::to_string(size) + rest;
}

inline std::string Entry(const Member& member) {
  std::string out;
  if (!member.pax.empty()) {
    Member extension;
    extension.name = "PaxHeaders/x";
    extension.type = 'x';
    std::string records;
    for (const auto& [key, value] : member.pax) records += PaxRecord(key, value);
    out += Header(extension, records.size()) + Pad(records);
  }
  out += Header(member, member.size >= 0 ? static_cast<size_t>(member.size) : member.data.size());
  return out + Pad(member.data);
}

inline std::string Archive(const std::vector<Member>& members) {
  std::string out;
  for (const Member& member : members) out += Entry(member);
  return out + std::string(1024, '\0');
}

}  // namespace layerstore::test
