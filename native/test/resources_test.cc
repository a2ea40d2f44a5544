// What hostile archives cost: memory stays under 32 MiB whatever comes, and work grows no faster than the archive.
// Memory is counted at operator new, which sanitizers do not blur; work in system calls, in what they give of
// directories and in allocations, which are the same on a busy machine. Processor time is printed and decides nothing:
// making names in a directory that grows costs the kernel more on some file systems, and more yet beside other
// programs.
#include <malloc.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <new>

#include "test/counted_calls.h"
#include "test/layer_fixture.h"
#include "test/tar_build.h"
#include "tree/inodes.h"
#include "unpack/ingest.h"

namespace {

std::atomic<size_t> live = 0;
std::atomic<size_t> peak = 0;
std::atomic<size_t> allocations = 0;

void* Take(size_t size) {
  void* memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  allocations++;
  const size_t now = live += malloc_usable_size(memory);
  size_t before = peak.load();
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
  return memory;
}

void Give(void* memory) {
  if (memory == nullptr) return;
  live -= malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

void* operator new(size_t size) { return Take(size); }
void* operator new[](size_t size) { return Take(size); }
void operator delete(void* memory) noexcept { Give(memory); }
void operator delete[](void* memory) noexcept { Give(memory); }
void operator delete(void* memory, size_t) noexcept { Give(memory); }
void operator delete[](void* memory, size_t) noexcept { Give(memory); }

using namespace layerstore;
using namespace layerstore::test;

namespace {

constexpr size_t kMemoryBytes = size_t{32} << 20;
// What two runs of one archive may differ by, in calls and allocations: buffers are grown as the threads meet.
constexpr size_t kSlack = 200;

// An archive that is made as it is read: `entry(i)` for each i below `count`, then the end.
class MadeSource final : public ByteSource {
 public:
  MadeSource(size_t count, const std::function<std::string(size_t)>& entry) : count_(count), entry_(entry) {}
  Result<size_t> Read(std::span<uint8_t> into) override {
    if (at_ == text_.size()) {
      at_ = 0;
      if (next_ < count_) {
        text_ = entry_(next_++);
      } else {
        text_ = ended_ ? std::string() : std::string(1024, '\0');
        ended_ = true;
      }
    }
    const size_t size = std::min(into.size(), text_.size() - at_);
    std::copy_n(text_.begin() + static_cast<std::ptrdiff_t>(at_), size, into.begin());
    at_ += size;
    return size;
  }

 private:
  size_t count_;
  const std::function<std::string(size_t)>& entry_;
  std::string text_;
  size_t at_ = 0;
  size_t next_ = 0;
  bool ended_ = false;
};

std::string Deep(size_t number, size_t depth) {
  std::string path = std::to_string(number);
  while (depth-- > 0) path += "/d";
  return path;
}

struct Case {
  const char* what;
  size_t count;  // of entries in the smallest of the three archives
  tree::Whiteouts whiteouts;
  std::function<std::string(size_t)> entry;
};

const std::vector<Case>& Cases() {
  static const std::vector<Case> cases = {
      {"one name again and again", 500, tree::Whiteouts::kOverlay,
       [](size_t) { return Entry({.name = "f", .data = "x"}); }},
      {"a directory and a file in turns", 400, tree::Whiteouts::kOverlay,
       [](size_t i) {
         return i % 2 == 0 ? Entry({.name = "d/", .type = '5'}) + Entry({.name = "d/x", .data = "1"})
                           : Entry({.name = "d", .data = "2"});
       }},
      {"hard links to one file", 2000, tree::Whiteouts::kOverlay,
       [](size_t i) {
         return i == 0 ? Entry({.name = "f", .data = "x"})
                       : Entry({.name = "l" + std::to_string(i), .type = '1', .link = "f"});
       }},
      {"hard links that are replaced", 1000, tree::Whiteouts::kApply,
       [](size_t i) {
         return i == 0 ? Entry({.name = "f", .data = "x"}) : Entry({.name = "l", .type = '1', .link = "f"});
       }},
      {"global PAX headers", 4000, tree::Whiteouts::kOverlay,
       [](size_t) {
         const std::string records = PaxRecord("comment", std::string(1000, 'c'));
         return Header({.name = "g", .type = 'g'}, records.size()) + Pad(records);
       }},
      {"local PAX headers with many records", 50, tree::Whiteouts::kOverlay,
       [](size_t i) {
         std::string records;
         for (int key = 0; key < 2000; key++) records += PaxRecord("k" + std::to_string(key), "v");
         return Header({.name = "x", .type = 'x'}, records.size()) + Pad(records) + Entry({.name = std::to_string(i)});
       }},
      {"sparse maps of many regions", 50, tree::Whiteouts::kOverlay,
       [](size_t i) {
         std::string map;
         for (int at = 0; at < 5000; at++) map += (at == 0 ? "" : ",") + std::to_string(at * 2) + ",0";
         const std::vector<std::pair<std::string, std::string>> pax = {
             {"GNU.sparse.size", "10000"}, {"GNU.sparse.numblocks", "5000"}, {"GNU.sparse.map", map}};
         return Entry({.name = std::to_string(i), .pax = pax});
       }},
      {"parents that nobody names", 4, tree::Whiteouts::kOverlay,
       [](size_t i) {
         return Entry({.name = "x", .pax = {{"path", Deep(i, 300) + "/file"}}});
       }},
      {"a long way to every file", 100, tree::Whiteouts::kOverlay,
       [](size_t i) {
         return Entry({.name = "x", .pax = {{"path", Deep(0, 300) + "/" + std::to_string(i)}}});
       }},
      {"whiteouts and files in turns", 500, tree::Whiteouts::kOverlay,
       [](size_t i) { return Entry({.name = i % 2 == 0 ? ".wh.f" : "f"}); }},
      {"opaque markers over a growing directory", 400, tree::Whiteouts::kApply,
       [](size_t i) { return Entry({.name = "d/" + std::to_string(i)}) + Entry({.name = "d/.wh..wh..opq"}); }},
      {"opaque markers from the inside out", 60, tree::Whiteouts::kApply,
       [](size_t i) {
         return (i == 0 ? Entry({.name = "x", .pax = {{"path", Deep(0, 250) + "/f"}}}) : std::string()) +
                Entry({.name = "x", .pax = {{"path", Deep(0, 250 - i) + "/.wh..wh..opq"}}});
       }},
      {"through a chain of links", 200, tree::Whiteouts::kOverlay,
       [](size_t i) {
         if (i == 0) return Entry({.name = "l0", .type = '2', .link = "."});
         if (i < 30) return Entry({.name = "l" + std::to_string(i), .type = '2', .link = "l" + std::to_string(i - 1)});
         return Entry({.name = "l29/" + std::to_string(i)});
       }},
      {"zeros behind the end", 16, tree::Whiteouts::kOverlay,
       [](size_t) { return std::string(size_t{1} << 20, '\0'); }},
      {"directories with times of their own", 500, tree::Whiteouts::kOverlay,
       [](size_t i) { return Entry({.name = std::to_string(i) + "/", .type = '5'}); }},
  };
  return cases;
}

struct Cost {
  size_t memory = 0;
  size_t calls = 0;
  size_t allocations = 0;
  double seconds = 0;
};

Cost Measure(const Case& one, size_t times) {
  Scratch scratch;
  unpack::IngestRequest request = RequestFor(scratch);
  request.whiteouts = one.whiteouts;
  MadeSource source(one.count * times, one.entry);
  Progress progress;
  CancelToken cancel;
  const size_t before = live.load();
  peak.store(before);
  struct timespec from;
  struct timespec to;
  const size_t calls_before = calls.load();
  const size_t allocations_before = allocations.load();
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
  auto result = unpack::Ingest(source, request, progress, cancel);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
  const size_t calls_after = calls.load();
  const size_t allocations_after = allocations.load();
  Report(result.ok(), __FILE__, __LINE__, std::string(one.what) + (result.ok() ? "" : ": " + Describe(result.error())));
  return {peak.load() - before, calls_after - calls_before, allocations_after - allocations_before,
          static_cast<double>(to.tv_sec - from.tv_sec) + static_cast<double>(to.tv_nsec - from.tv_nsec) / 1e9};
}

void TestCosts() {
  for (const Case& one : Cases()) {
    Cost costs[3];
    for (int i = 0; i < 3; i++) costs[i] = Measure(one, size_t{1} << i);
    std::printf("%-44s %5.1f MiB %8zu %8zu %8zu calls %8zu %8zu %8zu allocations %7.3f %7.3f %7.3f s\n", one.what,
                static_cast<double>(costs[2].memory) / (1 << 20), costs[0].calls, costs[1].calls, costs[2].calls,
                costs[0].allocations, costs[1].allocations, costs[2].allocations, costs[0].seconds, costs[1].seconds,
                costs[2].seconds);
    Report(costs[2].memory < kMemoryBytes, __FILE__, __LINE__,
           std::string(one.what) + ": " + std::to_string(costs[2].memory >> 10) + " KiB");
    // Four times the archive: quadratic work would be sixteen times as much. Some of it is start-up.
    const auto linear = [&](const char* of, size_t smallest, size_t largest) {
      Report(largest <= smallest * 5 + kSlack, __FILE__, __LINE__,
             std::string(one.what) + ": " + std::to_string(smallest) + " " + of + ", and " + std::to_string(largest) +
                 " for 4 times as much");
    };
    linear("calls", costs[0].calls, costs[2].calls);
    linear("allocations", costs[0].allocations, costs[2].allocations);
  }
}

// Directories that no entry names count as entries: they cost an inode each.
void TestImpliedCount() {
  Scratch scratch;
  unpack::IngestRequest request = RequestFor(scratch);
  request.limits.max_entries = 100;
  auto refused = RunIngest(Archive({{.name = "x", .pax = {{"path", Deep(0, 100) + "/f"}}}}), request);
  CHECK(!refused.ok() && refused.error().fault == Fault::kLimit && refused.error().detail == "maxEntries");
  CHECK(Tidy(scratch, false));
  scratch.Fresh();
  CHECK_OK(RunIngest(Archive({{.name = "x", .pax = {{"path", Deep(0, 98) + "/f"}}}}), request));
}

// Ten million inodes of one run, and numbers far apart.
void TestInodeSet() {
  const size_t before = live.load();
  tree::InodeSet set;
  bool fresh = true;
  for (uint64_t inode = 0; inode < 1'000'000; inode++) fresh = set.insert(inode + 12345) && fresh;
  CHECK(fresh);
  CHECK(live.load() - before < size_t{1} << 20);
  CHECK_EQ(set.size(), 1'000'000U);
  CHECK_EQ(set.insert(12345), false);
  CHECK(set.contains(12345) && set.contains(1'012'344) && !set.contains(12344) && !set.contains(1'012'345));
  CHECK(set.insert(UINT64_MAX) && set.contains(UINT64_MAX) && set.erase(UINT64_MAX) && !set.erase(UINT64_MAX));
  CHECK(!set.contains(UINT64_MAX) && set.size() == 1'000'000U);
}

}  // namespace

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  TestInodeSet();
  TestImpliedCount();
  TestCosts();
  return Finish();
}
