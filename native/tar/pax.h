// PAX records and the sparse maps that come in them. Pure functions over bytes of one extension header.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "sys/result.h"
#include "tar/entry.h"

namespace layerstore::tar {

// GNU.sparse.offset and .numbytes of format 0.0 are joined under GNU.sparse.map, as format 0.1 has it.
using PaxRecords = std::map<std::string, std::string, std::less<>>;

Result<PaxRecords> ParsePax(std::string_view text);

struct XattrLimits {
  uint64_t max_count;
  uint64_t max_bytes;
};
// Applies the records to the entry: names, owner, times, size, xattrs. An empty value leaves the header's value.
Result<void> MergePax(const PaxRecords& records, const XattrLimits& limits, Entry& entry);

enum class PaxSparse : uint8_t { kNone, kMapInRecords, kMapInData };
// Which GNU sparse format it is; name and size of the file it stands for are put into `entry`.
Result<PaxSparse> MergePaxSparse(const PaxRecords& records, Entry& entry);
// Formats 0.0 and 0.1.
Result<std::vector<SparseRegion>> ParseSparseMap(const PaxRecords& records);
// Regions in order, within `size`, and together `data_size` bytes.
Result<void> CheckSparse(const std::vector<SparseRegion>& regions, uint64_t size, uint64_t data_size);

}  // namespace layerstore::tar
