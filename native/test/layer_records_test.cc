// ReadLayerRecords: by threads with descriptor tables of their own, on many layers, good and bad; the process' own
// descriptors stay as they are.
#include "layer/layer_records.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <set>

#include "check.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

std::string Name(int n) {
  std::string digits = std::to_string(n);
  return std::string(64 - digits.size(), '0') + digits;
}

void Put(const std::string& path, const std::string& content) { std::ofstream(path) << content; }

void MakeLayer(const std::string& base, int n) {
  const std::string directory = base + "/" + Name(n);
  CHECK(mkdir(directory.c_str(), 0700) == 0);
  Put(directory + "/cache-id", "cache-" + std::to_string(n));
  Put(directory + "/diff", "sha256:" + Name(n));
  Put(directory + "/size", n % 5 == 0 ? "" : std::to_string(n));
}

int OpenDescriptors() {
  int count = 0;
  for (int fd = 0; fd < 1000; ++fd) count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return count;
}

void TestMany(const std::string& base) {
  constexpr int kLayers = 1000;
  for (int n = 0; n < kLayers; ++n) MakeLayer(base, n);
  CHECK(symlink("/etc", (base + "/" + Name(kLayers)).c_str()) == 0);
  CHECK(mkdir((base + "/\xff").c_str(), 0700) == 0);
  const int open_before = OpenDescriptors();
  const Result<LayerRecords> records = ReadLayerRecords(base);
  CHECK_OK(records);
  CHECK_EQ(OpenDescriptors(), open_before);
  CHECK_EQ(records->ends.size(), size_t{kLayers - kLayers / 5});
  CHECK_EQ(records->others.size(), size_t{kLayers / 5 + 2});
  std::set<std::string> seen;
  size_t at = 0;
  for (size_t row = 0; row < records->ends.size(); ++row) {
    const std::string text = records->text.substr(at, records->ends[row] - at);
    at = records->ends[row];
    const int n = static_cast<int>(records->sizes[row]);
    CHECK_EQ(text, "sha256:" + Name(n) + "sha256:" + Name(n) + "cache-" + std::to_string(n));
    CHECK(seen.insert(text).second);
  }
}

void TestMissing(const std::string& base) {
  const Result<LayerRecords> records = ReadLayerRecords(base + "/nothing");
  CHECK(!records.ok() && records.error().err == ENOENT);
}

}  // namespace

int main() {
  char base[] = "/tmp/layerstore-records-XXXXXX";
  if (mkdtemp(base) == nullptr) return 1;
  TestMany(base);
  TestMissing(base);
  CHECK(std::system(("rm -rf " + std::string(base)).c_str()) == 0);  // NOLINT(concurrency-mt-unsafe,cert-env33-c)
  return Finish();
}
