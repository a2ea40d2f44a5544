// Tars of more than one block, whose small files are filled by a thread of their own: the tree is what it would be if
// every file had been written in its turn.
#include <sys/resource.h>

#include <csignal>

#include "sys/thread.h"
#include "test/layer_fixture.h"
#include "test/tar_build.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

// More than the first block, so that what follows it is written behind.
const Member kFirst{.name = "first", .data = std::string(200'000, 'f')};

std::string Content(size_t index, size_t size) {
  std::string data(size, static_cast<char>('a' + index % 26));
  if (!data.empty()) data[size / 2] = static_cast<char>('A' + index % 26);
  return data;
}

// Every byte by the record, every mode, owner and time by the archive.
void CheckTree(const Scratch& scratch, const std::vector<Member>& members, const std::string& what) {
  const GivenBack back = GiveBack(scratch);
  Report(back.problem.empty(), __FILE__, __LINE__, what + ": " + back.problem);
  Report(back.tar == Archive(members), __FILE__, __LINE__, what + ": other bytes");
  for (const Member& member : members) {
    const struct stat info = Stat(scratch.tree() + "/" + member.name);
    const bool same = (info.st_mode & 07777) == member.mode && info.st_uid == member.uid && info.st_gid == member.gid &&
                      info.st_mtim.tv_sec == member.mtime;
    Report(same, __FILE__, __LINE__, what + ": metadata of " + member.name);
  }
}

// Sizes around every bound: empty, a byte, a block's end, the largest that is written behind, and larger.
void TestManySizes() {
  std::vector<Member> members = {kFirst};
  const size_t sizes[] = {0, 1, 511, 512, 4096, 70'000, 262'144, 262'145, 3'000'000};
  for (size_t i = 0; i < 900; i++) {
    const size_t size = i % 50 == 0 ? sizes[i / 50 % std::size(sizes)] : i * 7 % 5000;
    members.push_back({.name = "d" + std::to_string(i / 100) + "/f" + std::to_string(i),
                       .data = Content(i, size),
                       .mode = i % 3 == 0 ? 04755U : 0640U,
                       .uid = static_cast<unsigned>(i % 4),
                       .gid = static_cast<unsigned>(i % 5),
                       .mtime = 1'500'000'000 + static_cast<long>(i)});
  }
  for (const size_t step : {SIZE_MAX, size_t{100'001}}) {
    Scratch scratch;
    CHECK_OK(RunIngest(Archive(members), RequestFor(scratch), step));
    CheckTree(scratch, members, "many sizes");
  }
}

// A link's header is held against its target, which may still wait to be filled.
void TestLinksRightBehind() {
  std::vector<Member> members = {kFirst};
  for (size_t i = 0; i < 300; i++) {
    const std::string name = "f" + std::to_string(i);
    const long mtime = 1'600'000'000 + static_cast<long>(i % 2);
    members.push_back({.name = name, .data = Content(i, i * 11 % 3000), .mode = 0600, .mtime = mtime});
    members.push_back({.name = "l" + std::to_string(i), .type = '1', .link = name, .mode = 0600, .mtime = mtime});
  }
  Scratch scratch;
  CHECK_OK(RunIngest(Archive(members), RequestFor(scratch)));
  CheckTree(scratch, members, "links");
  CHECK_EQ(Stat(scratch.tree() + "/l299").st_nlink, 2U);
  // Where they differ the link's header has the last word.
  for (size_t i = 1; i < members.size(); i++) {
    if (members[i].type == '1') members[i].mtime += 7;
  }
  scratch.Fresh();
  CHECK_OK(RunIngest(Archive(members), RequestFor(scratch)));
  for (size_t i = 0; i < 300; i++) {
    CHECK_EQ(Stat(scratch.tree() + "/f" + std::to_string(i)).st_mtim.tv_sec, 1'600'000'007 + static_cast<long>(i % 2));
  }
}

// Few descriptors: files are then written in their turn.
void TestFewDescriptors() {
  struct rlimit before;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const struct rlimit few = {40, before.rlim_max};
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<Member> members = {kFirst};
  for (size_t i = 0; i < 500; i++) members.push_back({.name = "f" + std::to_string(i), .data = Content(i, 100)});
  Scratch scratch;
  CHECK_OK(RunIngest(Archive(members), RequestFor(scratch)));
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  CheckTree(scratch, members, "few descriptors");
}

// A file that cannot be written: named, and nothing of it is left open.
void TestFailure() {
  struct rlimit before;
  CHECK_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  CHECK(std::signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
  const struct rlimit small = {210'000, before.rlim_max};
  for (const size_t behind : {size_t{0}, size_t{10}, size_t{1000}}) {
    std::vector<Member> members = {kFirst, {.name = "large", .data = std::string(220'000, 'x')}};
    for (size_t i = 0; i < behind; i++) members.push_back({.name = "f" + std::to_string(i), .data = Content(i, 900)});
    Scratch scratch;
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    const auto result = RunIngest(Archive(members), RequestFor(scratch));
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    CHECK(!result.ok());
    if (result.ok()) continue;
    CHECK_EQ(result.error().err, EFBIG);
    CHECK_EQ(result.error().path, std::string("large"));
    CHECK(Tidy(scratch, false));
  }
}

// Side by side, so that all of them share the room for waiting files.
void TestSideBySide() {
  std::vector<Member> members = {kFirst};
  for (size_t i = 0; i < 1000; i++) members.push_back({.name = "f" + std::to_string(i), .data = Content(i, 3000)});
  const std::string tar = Archive(members);
  Scratch scratches[4];
  {
    std::vector<sys::Thread> threads;
    for (const Scratch& scratch : scratches) {
      auto thread = sys::Thread::Start([&] { CHECK_OK(RunIngest(tar, RequestFor(scratch))); });
      CHECK_OK(thread);
      if (thread.ok()) threads.push_back(std::move(*thread));
    }
  }
  for (const Scratch& scratch : scratches) CheckTree(scratch, members, "side by side");
}

}  // namespace

int main() {
  const size_t descriptors = OpenDescriptors();
  CHECK_OK(sys::Thread::Start([] {}));  // with the first thread sanitizers start their own
  const size_t threads = Threads();
  TestManySizes();
  TestLinksRightBehind();
  TestFewDescriptors();
  TestFailure();
  TestSideBySide();
  CHECK_EQ(OpenDescriptors(), descriptors);
  CHECK_EQ(Threads(), threads);
  return Finish();
}
