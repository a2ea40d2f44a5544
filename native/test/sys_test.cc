// native/sys: threads with a file-system context of their own, paths beyond PATH_MAX, directories, batches, locks,
// records.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <set>

#include "check.h"
#include "sys/batch.h"
#include "sys/directory.h"
#include "sys/fd_io.h"
#include "sys/open.h"
#include "sys/small_files.h"
#include "sys/thread.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

void TestThread() {
  const mode_t before = umask(027);
  umask(before);
  mode_t inside = 1;
  Result<sys::Thread> thread = sys::Thread::Start(
      [&] {
        inside = umask(0);
        CHECK(chdir("/") == 0);
      },
      {"sys-test", true, 0});
  CHECK(thread.ok());
  thread->Join();
  thread->Join();
  CHECK(!thread->joinable());
  CHECK(inside == 0);
  CHECK(umask(before) == before);
  char here[4096];
  CHECK(getcwd(here, sizeof here) != nullptr && std::string(here) != "/");
}

void TestLongPaths(const std::string& base) {
  // Made step by step: no single call takes the whole path.
  std::string path = base;
  UniqueFd at(open(base.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const std::string name(200, 'n');
  while (path.size() < 10000) {
    CHECK(mkdirat(at.get(), name.c_str(), 0700) == 0);
    at = UniqueFd(openat(at.get(), name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    path += "/" + name;
  }
  const UniqueFd file(openat(at.get(), "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  CHECK(file.valid());
  CHECK(sys::OpenPath(path + "/file", O_RDONLY).ok());
  CHECK(sys::OpenPath(path, O_RDONLY | O_DIRECTORY).ok());
  Result<UniqueFd> missing = sys::OpenPath(path + "/missing", O_RDONLY);
  CHECK(!missing.ok() && missing.error().err == ENOENT && missing.error().path == path + "/missing");
  Result<sys::ParentPath> parent = sys::OpenParent(path + "/file/");
  CHECK(parent.ok() && parent->name == "file" && faccessat(parent->directory.get(), "file", F_OK, 0) == 0);
  for (const char* bad : {"/", "/a/..", "."}) CHECK(!sys::OpenParent(bad).ok());
}

void TestOpenat2(const std::string& base) {
  if (!sys::HaveOpenat2()) return;
  CHECK(symlink("/etc", (base + "/out").c_str()) == 0);
  const UniqueFd root(open(base.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  Result<UniqueFd> beneath = sys::OpenBeneath(root.get(), "out/passwd", O_RDONLY, 0, sys::kResolveBeneath);
  CHECK(!beneath.ok() && beneath.error().err == EXDEV);
  Result<UniqueFd> inside = sys::OpenBeneath(root.get(), "out/passwd", O_RDONLY, 0, sys::kResolveInRoot);
  CHECK(!inside.ok() && inside.error().err == ENOENT);
}

void TestDirectory(const std::string& base) {
  const std::string directory = base + "/many";
  mkdir(directory.c_str(), 0700);
  std::set<std::string> names;
  for (int i = 0; i < 500; i++)
    names.insert("entry-" + std::to_string(i) + std::string(static_cast<size_t>(i % 50), 'x'));
  for (const std::string& name : names) CHECK(sys::OpenPath(directory + "/" + name, O_CREAT | O_WRONLY, 0600).ok());
  const UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  sys::DirectoryReader reader(fd.get(), 512);
  sys::DirectoryEntry entry;
  std::set<std::string> seen;
  for (;;) {
    Result<bool> more = reader.Next(entry);
    CHECK(more.ok());
    if (!more.ok() || !*more) break;
    CHECK(seen.insert(std::string(entry.name)).second);
    CHECK(entry.inode != 0);
  }
  CHECK(seen == names);
}

sys::BatchOp Op(sys::BatchKind kind, std::string path) {
  sys::BatchOp op;
  op.kind = kind;
  op.path = std::move(path);
  op.mode = 0700;
  return op;
}

void TestBatch(const std::string& base) {
  sys::BatchOp missing = Op(sys::BatchKind::kUnlink, base + "/missing");
  const Result<void> failed =
      sys::RunBatch({Op(sys::BatchKind::kMkdir, base + "/a"), Op(sys::BatchKind::kMkdir, base + "/a/b"),
                     Op(sys::BatchKind::kWrite, base + "/a/b/c"), missing});
  CHECK(!failed.ok());
  CHECK(access((base + "/a").c_str(), F_OK) != 0);
  missing.missing_ok = true;
  CHECK(
      sys::RunBatch({Op(sys::BatchKind::kMkdir, base + "/a"), missing, Op(sys::BatchKind::kFsync, base + "/a")}).ok());
  CHECK(access((base + "/a").c_str(), F_OK) == 0);
}

void TestLock(const std::string& base) {
  const std::string path = base + "/lock";
  Result<std::optional<UniqueFd>> first = sys::LockFile(path, true);
  CHECK(first.ok() && first->has_value());
  Result<std::optional<UniqueFd>> second = sys::LockFile(path, false);
  CHECK(second.ok() && !second->has_value());
  sys::UnlockFile(std::move(**first));
  Result<std::optional<UniqueFd>> third = sys::LockFile(path, false);
  CHECK(third.ok() && third->has_value());
  CHECK(!sys::LockFile(base + "/no/such/directory", true).ok());
  CHECK(sys::SyncFileSystems({base, path, "/tmp"}).ok());
}

// A line of a thread's /proc status, without its name.
std::string StatusOf(pid_t thread, const std::string& name) {
  const std::string status = *sys::ReadWholeFile("/proc/self/task/" + std::to_string(thread) + "/status");
  const size_t begin = status.find("\n" + name + ":") + name.size() + 2;
  return status.substr(begin, status.find('\n', begin) - begin);
}
char ThreadState(pid_t thread) { return StatusOf(thread, "State")[1]; }
std::string SwitchesOf(pid_t thread) { return StatusOf(thread, "voluntary_ctxt_switches"); }

void TestStreams(const std::string& base) {
  const std::string path = base + "/stream";
  CHECK(sys::RunBatch({[&] {
          sys::BatchOp op = Op(sys::BatchKind::kWrite, path);
          op.data = "0123456789";
          return op;
        }()})
            .ok());
  uint8_t buffer[64];
  Result<std::unique_ptr<sys::FdSource>> range = sys::FdSource::OpenRange(path, 3, 4);
  CHECK(range.ok() && (*range)->TotalBytes() == 4 && (*range)->fd() == -1);
  Result<size_t> got = (*range)->Read(buffer);
  CHECK(got.ok() && *got == 4 && buffer[0] == '3');
  CHECK(*(*range)->Read(buffer) == 0);
  Result<std::unique_ptr<sys::FdSource>> beyond = sys::FdSource::OpenRange(path, 8, 4);
  CHECK(*(*beyond)->Read(buffer) == 2);
  const Result<size_t> cut = (*beyond)->Read(buffer);
  CHECK(!cut.ok() && cut.error().fault == Fault::kBadTar);
  CHECK(sys::FdSource::Open(base).error().err == EISDIR);

  // A pipe that nobody reads: the write ends with the cancellation.
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  CancelToken cancel;
  std::atomic<pid_t> writer_id{0};
  Result<sys::Thread> writer = sys::Thread::Start([&] {
    writer_id = gettid();
    sys::FdSink sink(ends[1], &cancel);
    const std::vector<uint8_t> bytes(1 << 20);
    const Result<void> written = sink.Write(bytes);
    CHECK(!written.ok() && written.error().fault == Fault::kCancelled);
  });
  pollfd full{ends[0], POLLIN, 0};
  poll(&full, 1, -1);
  // It sleeps meanwhile: no timer wakes it.
  while (ThreadState(writer_id) != 'S') usleep(1000);
  const std::string before = SwitchesOf(writer_id);
  usleep(200'000);
  CHECK_EQ(SwitchesOf(writer_id), before);
  cancel.Cancel();
  writer->Join();
  close(ends[0]);
  close(ends[1]);
}

void TestSmallFiles(const std::string& base) {
  const std::string directory = base + "/small-files";
  CHECK(mkdir(directory.c_str(), 0700) == 0 && mkdir((directory + "/one").c_str(), 0700) == 0);
  CHECK(mkfifo((directory + "/one/fifo").c_str(), 0600) == 0);
  Result<std::vector<sys::SmallFilesRow>> rows = sys::ReadSmallFiles(directory, {"fifo", "missing"}, 100);
  CHECK(rows.ok() && rows->size() == 1 && (*rows)[0].directory == "one");
  CHECK((*rows)[0].files[0].err == EINVAL);
  CHECK((*rows)[0].files[1].err == 0 && !(*rows)[0].files[1].content);
  CHECK(!sys::ReadSmallFiles(base + "/none", {}, 1).ok());
}

}  // namespace

int main() {
  char base[] = "/var/tmp/layerstore-sys-test-XXXXXX";
  if (mkdtemp(base) == nullptr) return 1;
  TestThread();
  TestLongPaths(base);
  TestOpenat2(base);
  TestDirectory(base);
  TestBatch(base);
  TestLock(base);
  TestStreams(base);
  TestSmallFiles(base);
  const std::string clean = std::string("rm -rf ") + base;
  CHECK(std::system(clean.c_str()) == 0);
  return Finish();
}
