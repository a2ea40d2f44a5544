// Headers of the tars that this package writes itself, exactly as docs/on-disk-format.md, "The tar of an RW layer", has
// them: the same entry always gives the same bytes. No state; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sys/result.h"
#include "tar/entry.h"

namespace layerstore::tar {

// The two blocks that end a tar.
inline constexpr uint64_t kEndBytes = 2 * kBlockBytes;

// Zeros needed after `size` bytes of data.
[[nodiscard]] constexpr uint64_t Padding(uint64_t size) { return (kBlockBytes - size % kBlockBytes) % kBlockBytes; }

// Appends the entry's header to `out`, a PAX header before it where one is needed, and for a sparse entry its map.
// Used of `entry`: name (directories end in a slash), link_name, type, mode, uid, gid, size, mtime, device numbers,
// xattrs in byte order of name; where `sparse`, `regions` in order, `size` being the size of the expanded file. The
// data follows. Fault::kNotSupported for an xattr that has no form in a PAX record.
Result<void> AppendHeader(const Entry& entry, std::string& out);

// What follows the header of a sparse entry: the padded map.
std::string SparseMap(const Entry& entry);

}  // namespace layerstore::tar
