// ReadLayerRecords: by threads with descriptor tables of their own, on many layers, good and bad; the process' own
// descriptors stay as they are.
#include "layer/layer_records.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "check.h"
#include "hash/sha256.h"
#include "sys/directory.h"
#include "sys/files.h"

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

// Layers in one chain; gives the names of their directories.
std::vector<std::string> MakeChain(const std::string& records, int first, int count, std::string parent) {
  std::vector<std::string> directories;
  for (int n = first; n < first + count; ++n) {
    const std::string diff = "sha256:" + Name(n);
    const std::string both = parent + " " + diff;
    Sha256 hash;
    hash.Update({reinterpret_cast<const uint8_t*>(both.data()), both.size()});
    const std::string chain = parent.empty() ? diff : FormatDigest(hash.Finish());
    directories.push_back(records + "/" + chain.substr(7));
    CHECK(mkdir(directories.back().c_str(), 0700) == 0);
    Put(directories.back() + "/cache-id", "tree-" + std::to_string(n));
    Put(directories.back() + "/diff", diff);
    Put(directories.back() + "/size", std::to_string(n));
    if (!parent.empty()) Put(directories.back() + "/parent", parent);
    parent = chain;
  }
  return directories;
}

bool Same(const Result<LayerRecords>& a, const Result<LayerRecords>& b) {
  CHECK_OK(a);
  CHECK_OK(b);
  // Descriptors come as the threads find them.
  const auto descriptors = [](const Result<LayerRecords>& of) {
    return std::map<uint32_t, std::string>(of->descriptors.begin(), of->descriptors.end());
  };
  return a->text == b->text && a->ends == b->ends && a->sizes == b->sizes && a->parents == b->parents &&
         descriptors(a) == descriptors(b) && a->others == b->others;
}

double SizeOf(const Result<LayerRecords>& records, const std::string& cache_id) {
  CHECK_OK(records);
  size_t at = 0;
  for (size_t row = 0; row < records->ends.size(); ++row) {
    const std::string text = records->text.substr(at, records->ends[row] - at);
    at = records->ends[row];
    if (text.ends_with(cache_id)) return records->sizes[row];
  }
  return -1;
}

// Older than what may change once more without a new time.
void LetSettle() { std::this_thread::sleep_for(std::chrono::milliseconds(2200)); }

void TestIndex(const std::string& base) {
  const std::string records = base + "/indexed";
  const RecordIndexFile index{base + "/records.index", true};
  const RecordIndexFile reading{index.path, false};
  const auto exists = [&] { return access(index.path.c_str(), F_OK) == 0; };
  CHECK(mkdir(records.c_str(), 0700) == 0);
  const std::vector<std::string> layers = MakeChain(records, 0, 700, "");
  Put(layers[9] + "/descriptor.json", "{}");
  const auto truth = [&] { return ReadLayerRecords(records); };

  CHECK(Same(ReadLayerRecords(records, {}, index), truth()));
  CHECK(!exists());  // all were made just now
  LetSettle();
  CHECK(Same(ReadLayerRecords(records, {}, reading), truth()));
  CHECK(!exists());
  CHECK(Same(ReadLayerRecords(records, {}, index), truth()));
  CHECK(exists());
  struct stat status {};
  CHECK(stat(index.path.c_str(), &status) == 0 && (status.st_mode & 07777) == 0600);
  CHECK(Same(ReadLayerRecords(records, {}, reading), truth()));
  CHECK_EQ(ReadLayerRecords(records, {}, reading)->descriptors.size(), size_t{1});

  // It is used: what is written over in place is not seen, and whoever looks at the files sees it.
  Put(layers[5] + "/size", "12345");
  CHECK_EQ(SizeOf(ReadLayerRecords(records, {}, reading), "tree-5"), 5.0);
  CHECK_EQ(SizeOf(truth(), "tree-5"), 12345.0);
  Put(layers[5] + "/size", "5");

  // By another mount it counts for nothing: it might be the same disk after it was lost and came back.
  const std::string again = base + "/mounted";
  CHECK(mkdir(again.c_str(), 0700) == 0 && mount(records.c_str(), again.c_str(), nullptr, MS_BIND, nullptr) == 0);
  Put(layers[5] + "/size", "12345");
  CHECK_EQ(SizeOf(ReadLayerRecords(again, {}, reading), "tree-5"), 12345.0);
  CHECK_EQ(SizeOf(ReadLayerRecords(records, {}, reading), "tree-5"), 5.0);
  Put(layers[5] + "/size", "5");
  CHECK(umount2(again.c_str(), 0) == 0);

  // What is made, removed or replaced is seen.
  Put(layers[6] + "/new", "666");
  CHECK(rename((layers[6] + "/new").c_str(), (layers[6] + "/size").c_str()) == 0);
  CHECK_EQ(SizeOf(ReadLayerRecords(records, {}, reading), "tree-6"), 666.0);
  Put(layers[7] + "/descriptor.json", "[]");
  CHECK_EQ(ReadLayerRecords(records, {}, reading)->descriptors.size(), size_t{2});
  CHECK(unlink((layers[699] + "/diff").c_str()) == 0);
  CHECK_EQ(ReadLayerRecords(records, {}, reading)->others.size(), size_t{1});
  CHECK(rename(layers[698].c_str(), (base + "/aside").c_str()) == 0 && mkdir(layers[698].c_str(), 0700) == 0);
  CHECK_EQ(ReadLayerRecords(records, {}, reading)->others.size(), size_t{2});
  CHECK(rmdir(layers[698].c_str()) == 0);
  CHECK(Same(ReadLayerRecords(records, {}, reading), truth()));
  CHECK(rename((base + "/aside").c_str(), layers[698].c_str()) == 0);
  CHECK(Same(ReadLayerRecords(records, {}, reading), truth()));

  // A few new ones are read, and only many make it worth to write it anew.
  const auto written = [&] {
    CHECK(stat(index.path.c_str(), &status) == 0);
    return status.st_ino;
  };
  const ino_t before = written();
  MakeChain(records, 10'000, 20, "");
  LetSettle();
  CHECK(Same(ReadLayerRecords(records, {}, index), truth()));
  CHECK_EQ(written(), before);
  MakeChain(records, 20'000, 80, "");
  LetSettle();
  CHECK(Same(ReadLayerRecords(records, {}, index), truth()));
  CHECK(written() != before);

  // One of another directory, a damaged one, and what is none.
  const std::string other = base + "/other";
  CHECK(mkdir(other.c_str(), 0700) == 0);
  MakeChain(other, 50'000, 600, "");
  CHECK(Same(ReadLayerRecords(other, {}, reading), ReadLayerRecords(other)));
  const Result<std::string> good = ReadWholeFile(index.path);
  CHECK_OK(good);
  const auto with = [&](const std::string& content) {
    Put(index.path, content);
    CHECK(Same(ReadLayerRecords(records, {}, reading), truth()));
  };
  for (size_t n = 0; n < 40; ++n) {
    std::string bad = *good;
    bad[n * 7919 % bad.size()] ^= static_cast<char>(1 << (n % 8));
    with(bad);
  }
  for (const size_t size : {size_t{0}, size_t{1}, size_t{100}, good->size() / 2, good->size() - 1}) {
    with(good->substr(0, size));
  }
  with(*good + *good);
  CHECK(unlink(index.path.c_str()) == 0 && symlink("/dev/zero", index.path.c_str()) == 0);
  CHECK(Same(ReadLayerRecords(records, {}, reading), truth()));
  CHECK(unlink(index.path.c_str()) == 0 && mkfifo(index.path.c_str(), 0600) == 0);
  CHECK(Same(ReadLayerRecords(records, {}, reading), truth()));
  // Where it cannot be written it is done without.
  CHECK(Same(ReadLayerRecords(records, {}, {base + "/nothing/index", true}), truth()));
}

// One whose digest is right and whose content is not: nothing gets a name that is not its own, or leaves its place.
void TestForgedIndex(const std::string& base) {
  const std::string records = base + "/forged";
  const RecordIndexFile index{base + "/forged.index", true};
  CHECK(mkdir(records.c_str(), 0700) == 0);
  const std::vector<std::string> layers = MakeChain(records, 0, 600, "");
  LetSettle();
  CHECK_OK(ReadLayerRecords(records, {}, index));
  const Result<LayerRecords> truth = ReadLayerRecords(records);
  const Result<std::string> good = ReadWholeFile(index.path);
  CHECK_OK(good);
  const auto forge = [&](const std::string& from, const std::string& to) {
    std::string bytes = good->substr(0, good->size() - sizeof(Sha256Digest));
    const size_t at = bytes.find(from);
    CHECK(at != std::string::npos && from.size() == to.size());
    bytes.replace(at, from.size(), to);
    Sha256 hash;
    hash.Update(Bytes(bytes));
    const Sha256Digest digest = hash.Finish();
    Put(index.path, bytes + std::string(reinterpret_cast<const char*>(digest.data()), digest.size()));
    CHECK(Same(ReadLayerRecords(records, {}, {index.path, false}), truth));
  };
  // In the entry of layer 300, whose diff that is: the name behind it begins the entry, and its parent's comes after.
  forge(Name(300), Name(301));
  forge("tree-300", "../../00");
  forge("tree-300", std::string("tree\0"
                                "300",
                                8));
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
  TestIndex(home);
  TestForgedIndex(home);
  TestSurvey(home);
  TestMissing(base);
  CHECK(std::system(("rm -rf " + std::string(base)).c_str()) == 0);  // NOLINT(concurrency-mt-unsafe,cert-env33-c)
  return Finish();
}
