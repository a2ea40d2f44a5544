// Ingest on hostile and broken input, limits, cancellation: the right refusal, nothing outside touched, nothing left.
#include "sys/thread.h"
#include "test/layer_fixture.h"
#include "test/tar_build.h"
#include "unpack/ingest.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

// A file beside the layer that every escape tries to reach.
class Victim {
 public:
  explicit Victim(const Scratch& scratch) : path_(scratch.path() + "/victim") {
    std::filesystem::create_directories(path_);
    const int fd = open((path_ + "/file").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    const ssize_t count = write(fd, "safe", 4);
    CHECK_EQ(count, 4);
    close(fd);
    before_ = Stat(path_ + "/file");
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] bool Untouched() const {
    const struct stat now = Stat(path_ + "/file");
    size_t items = 0;
    for (const auto& item : std::filesystem::directory_iterator(path_)) items += item.path().empty() ? 0 : 1;
    return ReadFile(path_ + "/file") == "safe" && items == 1 && now.st_mode == before_.st_mode &&
           now.st_uid == before_.st_uid && now.st_nlink == 1 && now.st_mtim.tv_sec == before_.st_mtim.tv_sec &&
           now.st_ino == before_.st_ino;
  }

 private:
  std::string path_;
  struct stat before_ = {};
};

void TestEscapes() {
  Scratch scratch;
  const Victim victim(scratch);
  const std::string out = victim.path();
  const std::string up = "../../victim";
  struct Case {
    const char* what;
    std::vector<Member> members;
    std::optional<Fault> fault;  // none: contained
  };
  const Case cases[] = {
      {"dots", {{.name = "../../victim/file", .data = "x"}}, Fault::kUnsafePath},
      {"dots inside", {{.name = "a/../../x", .data = "x"}}, Fault::kUnsafePath},
      {"whiteout above", {{.name = "../.wh.victim"}}, Fault::kUnsafePath},
      {"root as a file", {{.name = ".", .data = "x"}}, Fault::kUnsafePath},
      {"absolute", {{.name = out + "/file", .data = "x"}}, std::nullopt},
      {"through an absolute link",
       {{.name = "l", .type = '2', .link = out}, {.name = "l/file", .data = "x"}},
       Fault::kBadTar},
      {"through a relative link",
       {{.name = "l", .type = '2', .link = up}, {.name = "l/file", .data = "x"}},
       Fault::kBadTar},
      {"through a chain",
       {{.name = "a", .type = '2', .link = "/b/.."},
        {.name = "b", .type = '2', .link = "../../.."},
        {.name = "a/victim/file", .data = "x"}},
       std::nullopt},
      {"over a link",
       {{.name = "l", .type = '2', .link = out + "/file"}, {.name = "l", .data = "x", .mode = 0777, .uid = 9}},
       std::nullopt},
      {"directory over a link",
       {{.name = "l", .type = '2', .link = out},
        {.name = "l/", .type = '5', .mode = 0777, .uid = 9},
        {.name = "l/file", .data = "x"}},
       std::nullopt},
      {"hard link out", {{.name = "h", .type = '1', .link = "../../victim/file"}}, Fault::kUnsafePath},
      {"hard link to an absolute name", {{.name = "h", .type = '1', .link = out + "/file"}}, Fault::kBadTar},
      {"hard link through a link",
       {{.name = "l", .type = '2', .link = out}, {.name = "h", .type = '1', .link = "l/file"}},
       Fault::kBadTar},
      {"hard link to a link, then metadata",
       {{.name = "l", .type = '2', .link = out + "/file"},
        {.name = "h", .type = '1', .link = "l", .mode = 0777, .uid = 9},
        {.name = "h", .data = "x"}},
       std::nullopt},
      {"whiteout through a link", {{.name = "l", .type = '2', .link = out}, {.name = "l/.wh.file"}}, Fault::kBadTar},
      {"opaque through a link", {{.name = "l", .type = '2', .link = up}, {.name = "l/.wh..wh..opq"}}, Fault::kBadTar},
      {"magic link",
       {{.name = "l", .type = '2', .link = "/proc/self/cwd"}, {.name = "l/x", .data = "x"}},
       Fault::kBadTar},
      {"link loop", {{.name = "l", .type = '2', .link = "l"}, {.name = "l/x", .data = "x"}}, Fault::kBadTar},
      {"a file as parent", {{.name = "f", .data = "x"}, {.name = "f/x", .data = "x"}}, Fault::kBadTar},
      {"hard link to nothing", {{.name = "h", .type = '1', .link = "missing"}}, Fault::kBadTar},
      {"hard link to a directory",
       {{.name = "d/", .type = '5'}, {.name = "h", .type = '1', .link = "d"}},
       Fault::kBadTar},
      {"hard link to the root", {{.name = "h", .type = '1', .link = "/"}}, Fault::kBadTar},
      {"hard link to a whiteout", {{.name = ".wh.w"}, {.name = "h", .type = '1', .link = "w"}}, Fault::kBadTar},
      {"whiteout device", {{.name = "w", .type = '3'}}, Fault::kUnsafePath},
      {"whiteout of nothing", {{.name = "d/.wh."}}, Fault::kUnsafePath},
      {"whiteout of the directory", {{.name = "d/.wh.."}}, Fault::kUnsafePath},
      {"whiteout of the parent", {{.name = "d/.wh..."}}, Fault::kUnsafePath},
      {"unknown type", {{.name = "x", .type = 'V'}}, Fault::kBadTar},
      {"link without target", {{.name = "x", .type = '2'}}, Fault::kBadTar},
      {"overlay xattrs",
       {{.name = "d/",
         .type = '5',
         .pax = {{"SCHILY.xattr.trusted.overlay.redirect", "/x"}, {"SCHILY.xattr.user.overlay.opaque", "y"}}}},
       std::nullopt},
  };
  for (const Case& one : cases) {
    for (const bool walk : {false, true}) {
      for (const tree::Whiteouts whiteouts : {tree::Whiteouts::kOverlay, tree::Whiteouts::kApply}) {
        const bool hides = std::string_view(one.what).find("hiteout") != std::string_view::npos ||
                           std::string_view(one.what).find("paque") != std::string_view::npos;
        if (whiteouts == tree::Whiteouts::kApply && hides && one.fault != Fault::kUnsafePath) continue;
        scratch.Fresh();
        unpack::IngestRequest request = RequestFor(scratch);
        request.force_component_walk = walk;
        request.whiteouts = whiteouts;
        auto result = RunIngest(Archive(one.members), request);
        const bool expected = one.fault.has_value() ? !result.ok() && result.error().fault == *one.fault : result.ok();
        Report(expected, __FILE__, __LINE__,
               std::string(one.what) + ": " + (result.ok() ? "accepted" : Describe(result.error())));
        Report(victim.Untouched(), __FILE__, __LINE__, std::string(one.what) + ": reached outside");
        Report(Tidy(scratch, result.ok()), __FILE__, __LINE__, std::string(one.what) + ": something is left");
        if (result.ok()) CHECK_EQ(GiveBack(scratch).tar, Archive(one.members));
      }
    }
  }
}

void TestLowerOnly() {
  Scratch scratch;
  CHECK_OK(RunIngest(Archive({{.name = "lower", .data = "x"}}),
                     {.directory = scratch.tree(), .whiteouts = tree::Whiteouts::kApply}));
  auto result = RunIngest(Archive({{.name = "h", .type = '1', .link = "lower"}}),
                          {.directory = scratch.tree(), .whiteouts = tree::Whiteouts::kApply});
  CHECK(!result.ok() && result.error().fault == Fault::kBadTar);
}

void TestLimits() {
  Scratch scratch;
  struct Case {
    const char* limit;
    uint64_t unpack::UnpackLimits::*field;
    uint64_t value;
    std::vector<Member> members;
  };
  const Member same{.name = "f", .data = std::string(5000, 'x')};
  const Case cases[] = {
      {"maxBytes", &unpack::UnpackLimits::max_bytes, 2000, {{.name = "a", .data = "x"}, {.name = "b", .data = "x"}}},
      {"maxEntries", &unpack::UnpackLimits::max_entries, 1, {{.name = "a"}, {.name = "b"}}},
      {"maxPathLength", &unpack::UnpackLimits::max_path_length, 3, {{.name = "abcd"}}},
      {"maxPathDepth", &unpack::UnpackLimits::max_path_depth, 2, {{.name = "a/b/c"}}},
      {"maxHeaderBytes",
       &unpack::UnpackLimits::max_header_bytes,
       1000,
       {{.name = "a", .pax = {{"comment", std::string(2000, 'x')}}}}},
      {"maxXattrBytes",
       &unpack::UnpackLimits::max_xattr_bytes,
       10,
       {{.name = "a", .pax = {{"SCHILY.xattr.user.a", "123456"}}}}},
      {"maxXattrs", &unpack::UnpackLimits::max_xattrs, 0, {{.name = "a", .pax = {{"SCHILY.xattr.user.a", "123456"}}}}},
      {"maxLinkLength", &unpack::UnpackLimits::max_link_length, 3, {{.name = "a", .type = '2', .link = "1234"}}},
      {"maxKeptBytes", &unpack::UnpackLimits::max_kept_bytes, 4999, {same, same}},
      {"maxKeptBytes", &unpack::UnpackLimits::max_kept_bytes, 9, {{.name = ".wh..wh.x", .data = "0123456789"}}},
      {"minFreeBytes", &unpack::UnpackLimits::min_free_bytes, UINT64_MAX, {{.name = "a"}}},
  };
  for (const Case& one : cases) {
    scratch.Fresh();
    unpack::IngestRequest request = RequestFor(scratch);
    request.limits.*one.field = one.value;
    auto result = RunIngest(Archive(one.members), request);
    Report(!result.ok() && result.error().fault == Fault::kLimit && result.error().detail == one.limit, __FILE__,
           __LINE__, std::string(one.limit) + (result.ok() ? " accepted" : ": " + Describe(result.error())));
    CHECK(Tidy(scratch, false));
  }
}

// Gives the head of an archive, then 64 KiB at a time of one endless file, or an error of its own.
class HeadSource final : public ByteSource {
 public:
  HeadSource(std::string head, bool fails) : head_(std::move(head)), fails_(fails) {}
  Result<size_t> Read(std::span<uint8_t> into) override {
    if (!head_.empty()) {
      const size_t count = std::min(into.size(), head_.size());
      std::copy_n(head_.begin(), count, into.begin());
      head_.erase(0, count);
      return count;
    }
    if (fails_) return DataError(Fault::kSourceError, "the source's own");
    const size_t count = std::min<size_t>(into.size(), 65536);
    std::fill_n(into.begin(), count, uint8_t{'e'});
    usleep(1000);
    return count;
  }

 private:
  std::string head_;
  bool fails_;
};

void TestStops() {
  Scratch scratch;
  {
    HeadSource source(Entry({.name = "small", .data = "x"}) + Entry({.name = "endless", .size = 077777777777}), false);
    CancelToken cancel;
    Progress progress;
    auto watcher = sys::Thread::Start([&] {
      while (progress.bytes_read.load() < (uint64_t{4} << 20)) usleep(1000);
      cancel.Cancel();
    });
    CHECK_OK(watcher);
    auto result = unpack::Ingest(source, RequestFor(scratch), progress, cancel);
    CHECK(!result.ok() && result.error().fault == Fault::kCancelled);
    CHECK(Tidy(scratch, false));
  }
  scratch.Fresh();
  {
    HeadSource source(Entry({.name = "f", .size = 100000}), true);
    CancelToken cancel;
    Progress progress;
    auto result = unpack::Ingest(source, RequestFor(scratch), progress, cancel);
    CHECK(!result.ok() && result.error().fault == Fault::kSourceError && result.error().detail == "the source's own");
    CHECK(Tidy(scratch, false));
  }
  scratch.Fresh();
  auto garbage = RunIngest(std::string(5'000'000, 'g'), RequestFor(scratch));
  CHECK(!garbage.ok() && garbage.error().fault == Fault::kBadTar);
  CHECK(Tidy(scratch, false));
  unpack::IngestRequest request = RequestFor(scratch);
  request.directory += "/missing";
  auto missing = RunIngest(Archive({}), request);
  CHECK(!missing.ok() && missing.error().fault == Fault::kSystem && missing.error().err == ENOENT);
  // A record that is there already is not ours to remove.
  const int fd = open(scratch.record().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  close(fd);
  auto taken = RunIngest(Archive({}), RequestFor(scratch));
  CHECK(!taken.ok() && taken.error().err == EEXIST);
  CHECK(Tidy(scratch, true));
}

void TestHashSource() {
  const std::string tar = Archive({{.name = "a", .data = std::string(3'000'000, 'a')}});
  MemorySource source(tar, 70000);
  CancelToken cancel;
  auto result = unpack::HashSource(source, {}, cancel);
  CHECK_OK(result);
  hash::Sha256 sha;
  sha.Update(Bytes(tar));
  CHECK_EQ(result->diff_id, sha.Finish());
  CHECK_EQ(result->digest, result->diff_id);
  CHECK_EQ(result->tar_size, tar.size());
  CHECK_EQ(result->size, tar.size());
  cancel.Cancel();
  MemorySource again(tar);
  auto cancelled = unpack::HashSource(again, {}, cancel);
  CHECK(!cancelled.ok() && cancelled.error().fault == Fault::kCancelled);
}

}  // namespace

int main() {
  const size_t descriptors = OpenDescriptors();
  CHECK_OK(sys::Thread::Start([] {}));  // with the first thread sanitizers start their own
  const size_t threads = Threads();
  TestEscapes();
  TestLowerOnly();
  TestLimits();
  TestStops();
  TestHashSource();
  CHECK_EQ(OpenDescriptors(), descriptors);
  CHECK_EQ(Threads(), threads);
  return Finish();
}
