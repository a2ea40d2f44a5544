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
#include "hash/sha256.h"
#include "sys/directory.h"

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

// With descriptors and parents that were read by different threads; and only who has a tree is housed.
void TestChain(const std::string& base) {
  constexpr int kLayers = 1200;
  const std::string records = base + "/chain";
  const std::string trees = base + "/trees";
  CHECK(mkdir(records.c_str(), 0700) == 0 && mkdir(trees.c_str(), 0700) == 0);
  std::string parent;
  for (int n = 0; n < kLayers; ++n) {
    const std::string diff = "sha256:" + Name(n);
    const std::string both = parent + " " + diff;
    Sha256 hash;
    hash.Update({reinterpret_cast<const uint8_t*>(both.data()), both.size()});
    const std::string chain = parent.empty() ? diff : FormatDigest(hash.Finish());
    const std::string directory = records + "/" + chain.substr(7);
    CHECK(mkdir(directory.c_str(), 0700) == 0);
    Put(directory + "/cache-id", "tree-" + std::to_string(n));
    Put(directory + "/diff", diff);
    Put(directory + "/size", std::to_string(n));
    if (!parent.empty()) Put(directory + "/parent", parent);
    if (n % 100 == 7) Put(directory + "/descriptor.json", std::to_string(n));
    CHECK(mkdir((trees + "/tree-" + std::to_string(n)).c_str(), 0700) == 0);
    parent = chain;
  }
  const Result<LayerRecords> whole = ReadLayerRecords(records, {trees, ""});
  CHECK_OK(whole);
  CHECK(whole->housed && whole->others.empty());
  CHECK_EQ(whole->ends.size(), size_t{kLayers});
  for (int n = 0; n < kLayers; ++n) {
    const auto row = static_cast<size_t>(n);
    CHECK_EQ(whole->sizes[row], static_cast<double>(n));
    CHECK_EQ(whole->parents[row], n - 1);
  }
  CHECK_EQ(whole->descriptors.size(), size_t{kLayers / 100});
  for (const auto& [row, text] : whole->descriptors) CHECK_EQ(text, std::to_string(row));

  CHECK(!ReadLayerRecords(records)->housed);
  CHECK(!ReadLayerRecords(records, {trees, "tree-5"})->housed);
  CHECK(!ReadLayerRecords(records, {base + "/nothing", ""})->housed);
  const std::string last = trees + "/tree-" + std::to_string(kLayers - 1);
  CHECK(rmdir(last.c_str()) == 0 && symlink(trees.c_str(), last.c_str()) == 0);
  const Result<LayerRecords> lacking = ReadLayerRecords(records, {trees, ""});
  CHECK(lacking.ok() && !lacking->housed && lacking->ends.size() == size_t{kLayers});
}

void TestSurvey(const std::string& base) {
  const std::string directory = base + "/survey";
  for (const char* name : {"", "/layer", "/l", "/.removing-x", "/a+b"}) {
    CHECK(mkdir((directory + name).c_str(), 0700) == 0);
  }
  Put(directory + "/file", "");
  CHECK(symlink(directory.c_str(), (directory + "/link").c_str()) == 0);
  const Result<DirectorySurvey> survey = SurveyDirectory(directory);
  CHECK_OK(survey);
  CHECK_EQ(survey->entries, uint64_t{6});
  CHECK_EQ(survey->layers, uint64_t{2});
  CHECK(survey->others == ".removing-x/a+b/" || survey->others == "a+b/.removing-x/");
}

void TestMissing(const std::string& base) {
  const Result<LayerRecords> records = ReadLayerRecords(base + "/nothing");
  CHECK(!records.ok() && records.error().err == ENOENT);
}

}  // namespace

int main() {
  char base[] = "/tmp/layerstore-records-XXXXXX";
  if (mkdtemp(base) == nullptr) return 1;
  const std::string home = base;
  CHECK(mkdir((home + "/many").c_str(), 0700) == 0);
  TestMany(home + "/many");
  TestChain(home);
  TestSurvey(home);
  TestMissing(base);
  CHECK(std::system(("rm -rf " + std::string(base)).c_str()) == 0);  // NOLINT(concurrency-mt-unsafe,cert-env33-c)
  return Finish();
}
