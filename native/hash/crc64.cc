#include "hash/crc64.h"

#include <array>
#include <bit>
#include <cstring>

#ifdef LS_HAVE_ISAL
#include <isa-l/crc64.h>
#endif

namespace layerstore::hash {
namespace {

constexpr uint64_t kPolynomial = 0xD800000000000000;
constexpr size_t kSlices = 16;
using Tables = std::array<std::array<uint64_t, 256>, kSlices>;

// tables[k][b]: the checksum of byte b followed by k zero bytes.
constexpr Tables MakeTables() {
  Tables tables{};
  for (uint64_t byte = 0; byte < 256; byte++) {
    uint64_t crc = byte;
    for (int bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? (crc >> 1) ^ kPolynomial : crc >> 1;
    tables[0][byte] = crc;
  }
  for (size_t slice = 1; slice < kSlices; slice++) {
    for (size_t byte = 0; byte < 256; byte++) {
      const uint64_t before = tables[slice - 1][byte];
      tables[slice][byte] = tables[0][before & 0xFF] ^ (before >> 8);
    }
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

uint64_t LoadLittleEndian(const uint8_t* bytes) {
  uint64_t value = 0;
  std::memcpy(&value, bytes, sizeof value);
  if constexpr (std::endian::native == std::endian::big) value = __builtin_bswap64(value);
  return value;
}

}  // namespace

uint64_t Crc64IsoTable(uint64_t crc, std::span<const uint8_t> bytes) {
  crc = ~crc;
  const uint8_t* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= kSlices; left -= kSlices, at += kSlices) {
    uint64_t low = LoadLittleEndian(at) ^ crc;
    uint64_t high = LoadLittleEndian(at + 8);
    crc = 0;
    for (size_t i = 0; i < 8; i++, low >>= 8, high >>= 8) {
      crc ^= kTables[15 - i][low & 0xFF] ^ kTables[7 - i][high & 0xFF];
    }
  }
  for (; left > 0; left--, at++) crc = kTables[0][(crc ^ *at) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

#ifdef LS_HAVE_ISAL
uint64_t Crc64Iso(uint64_t crc, std::span<const uint8_t> bytes) {
  return bytes.empty() ? crc : crc64_iso_refl(crc, bytes.data(), bytes.size());
}
const char* Crc64Backend() { return "isal"; }
#else
uint64_t Crc64Iso(uint64_t crc, std::span<const uint8_t> bytes) { return Crc64IsoTable(crc, bytes); }
const char* Crc64Backend() { return "table"; }
#endif

}  // namespace layerstore::hash
