// PAX records, the sparse maps in them, number fields and entry names.
#include "tar/header.h"
#include "tar/pax.h"
#include "unpack/entry_name.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace layerstore;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)tar::ParseNumeric({data, size});
  (void)tar::ParseDecimal(text);
  (void)unpack::ParseEntryName(text, {});
  auto records = tar::ParsePax(text);
  if (!records.ok()) return 0;
  tar::Entry entry;
  if (!tar::MergePax(*records, {16, 1 << 12}, entry).ok()) return 0;
  auto sparse = tar::MergePaxSparse(*records, entry);
  if (!sparse.ok() || *sparse != tar::PaxSparse::kMapInRecords) return 0;
  auto regions = tar::ParseSparseMap(*records);
  if (regions.ok()) (void)tar::CheckSparse(*regions, entry.size, 4096);
  return 0;
}
