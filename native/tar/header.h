// One header block: number fields, checksum, the five dialects. Accepts and refuses what Go's archive/tar does, since
// that is what layers are made for. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "sys/result.h"
#include "tar/entry.h"

namespace layerstore::tar {

enum class Format : uint8_t { kUnknown, kV7, kUstar, kGnu, kStar };

using Block = std::span<const uint8_t, kBlockBytes>;

// kUnknown: the checksum is wrong.
Format DetectFormat(Block block);
bool IsZeroBlock(Block block);

// Octal with blanks and NULs around, or base-256 in two's complement; nothing where it is neither or does not fit.
std::optional<int64_t> ParseNumeric(std::span<const uint8_t> field);
// Up to the first NUL.
std::string ParseText(std::span<const uint8_t> field);
// Decimal with an optional sign, all of `text`.
std::optional<int64_t> ParseDecimal(std::string_view text);

// Fields of a block whose format is known; `entry.size` is the size field (negative is an error), `entry.type` the raw
// byte. The error's detail names the field.
Result<void> ParseHeaderBlock(Block block, Format format, Entry& entry);

// The name of the compression or other format that the data begins with, "xz" or "bzip2". Empty: none that is known.
std::string_view NameOfForeignFormat(std::span<const uint8_t> bytes);

// Link, symlink, device, directory, FIFO: no data follows whatever the size field says.
bool IsHeaderOnly(Type type);

}  // namespace layerstore::tar
