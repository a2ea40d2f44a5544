// PAX records, the sparse maps in them, number fields and entry names.
#include "layer/entry_name.h"
#include "tar/header.h"
#include "tar/pax.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace layerstore;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)ParseNumeric({data, size});
  (void)ParseDecimal(text);
  (void)ParseEntryName(text, {});
  auto records = ParsePax(text);
  if (!records.ok()) return 0;
  TarEntry entry;
  if (!MergePax(*records, {16, 1 << 12}, entry).ok()) return 0;
  auto sparse = MergePaxSparse(*records, entry);
  if (!sparse.ok() || *sparse != PaxSparse::kMapInRecords) return 0;
  auto regions = ParseSparseMap(*records);
  if (regions.ok()) (void)CheckSparse(*regions, entry.size, 4096);
  return 0;
}
