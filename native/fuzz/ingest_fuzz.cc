// Ingest as a whole, as root or not, into a temporary directory: nothing is made outside it, and what was accepted is
// given back byte for byte. Seeds: test/data/tar.
#include <cstdlib>
#include <filesystem>

#include "pack/pack.h"
#include "test/layer_fixture.h"
#include "unpack/ingest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace layerstore;
  using namespace layerstore::test;
  static Scratch scratch;
  scratch.Fresh();
  unpack::IngestRequest request = RequestFor(scratch);
  request.force_component_walk = size % 2 == 0;
  request.whiteouts = size % 3 == 0 ? tree::Whiteouts::kApply : tree::Whiteouts::kOverlay;
  request.limits.max_bytes = uint64_t{4} << 20;
  request.limits.max_entries = 1000;
  const std::string tar(reinterpret_cast<const char*>(data), size);
  auto result = RunIngest(tar, request);
  if (!Tidy(scratch, result.ok())) std::abort();
  if (!result.ok() || result->compression != codec::Compression::kNone) return 0;
  StringSink sink;
  CancelToken cancel;
  auto back = pack::Assemble(
      {.tar_split_path = scratch.record(), .directory = scratch.tree(), .diff_id = result->diff_id}, sink, cancel);
  if (!back.ok() || sink.text != tar) {
    std::fprintf(stderr, "%s\n", back.ok() ? "other bytes" : Describe(back.error()).c_str());
    std::abort();
  }
  return 0;
}
