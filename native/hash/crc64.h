// CRC-64/ISO, as Go's hash/crc64 computes it (reflected polynomial 0xD800000000000000, all ones in and out), the
// checksum of tar-split records. Check: "123456789" -> b90956c775a41001. By carry-less multiplication where ISA-L is
// there (crc64_iso_refl), else by a sliced table.
#pragma once

#include <cstdint>
#include <span>

namespace layerstore::hash {

// `crc` is 0 at the start, then what the last call gave.
uint64_t Crc64Iso(uint64_t crc, std::span<const uint8_t> bytes);
// The same by the sliced table, whatever the build: the fallback, and what tests hold the fast path against.
uint64_t Crc64IsoTable(uint64_t crc, std::span<const uint8_t> bytes);
// "isal" or "table".
const char* Crc64Backend();

}  // namespace layerstore::hash
