// Sparse maps in each of their formats: the input is a map, and a whole archive is put around it (PAX 0.0, 0.1, 1.0,
// old GNU), so that the fuzzer does not have to find checksums. A map that is accepted lies in order, within the file,
// and has just as much data as the archive.
#include <algorithm>
#include <cstdlib>
#include <limits>

#include "tar/reader.h"
#include "test/tar_build.h"

namespace {

using namespace layerstore;
using namespace layerstore::test;

class FuzzInput final : public tar::Input {
 public:
  explicit FuzzInput(const std::string& bytes) : left_(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()) {}
  Result<std::span<const uint8_t>> Take(size_t max) override {
    const auto bytes = left_.first(std::min({max, left_.size(), size_t{700}}));
    left_ = left_.subspan(bytes.size());
    return bytes;
  }

 private:
  std::span<const uint8_t> left_;
};

std::string Build(uint8_t format, const std::string& map, uint64_t size) {
  Member member{.name = "f", .data = std::string(1024, 'd')};
  const std::string real = std::to_string(size);
  switch (format % 4) {
    case 0:
      member.pax = {{"GNU.sparse.size", real},
                    {"GNU.sparse.numblocks", "2"},
                    {"GNU.sparse.offset", map},
                    {"GNU.sparse.numbytes", "512"}};
      break;
    case 1:
      member.pax = {{"GNU.sparse.size", real}, {"GNU.sparse.numblocks", "1"}, {"GNU.sparse.map", map}};
      break;
    case 2:
      member.pax = {{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.realsize", real}};
      member.data = Pad(map) + member.data;
      break;
    default: {
      member.type = 'S';
      member.magic = std::string("ustar  \0", 8);
      std::string header = Header(member, member.data.size());
      const size_t count = std::min<size_t>(map.size(), 512 - 386);
      std::memcpy(&header[386], map.data(), count);
      SetChecksum(header);
      return header + map.substr(count) + member.data;
    }
  }
  return Archive({member});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const uint64_t real = uint64_t{data[1]} << (data[2] % 56);
  const std::string tar = Build(data[0], std::string(reinterpret_cast<const char*>(data) + 3, size - 3), real);
  FuzzInput input(tar);
  tar::Reader reader(input, {1 << 16, {16, 1 << 12}});
  tar::Entry entry;
  while (true) {
    auto step = reader.Next(entry);
    if (!step.ok() || *step == tar::Reader::Step::kEnd) return 0;
    if (*step != tar::Reader::Step::kEntry || !entry.sparse) continue;
    uint64_t end = 0;
    uint64_t total = 0;
    for (const tar::SparseRegion& region : entry.regions) {
      if (region.offset < end || region.length > entry.size || region.offset > entry.size - region.length) std::abort();
      end = region.offset + region.length;
      total += region.length;
    }
    if (total != entry.data_size || entry.size > std::numeric_limits<int64_t>::max()) std::abort();
  }
}
