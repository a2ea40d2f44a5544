// Removal, copies and sizes: deep and hostile trees, mounts in the way, cancellation, nothing left open.
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "pack/pack.h"
#include "test/tree_support.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

const CancelToken kNever;

size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& item : std::filesystem::directory_iterator("/proc/self/fd")) count++;
  return count;
}

bool Exists(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0;
}

// Deeper than any path can name, and than any process may hold descriptors.
void DeepTree() {
  const Scratch scratch;
  const std::string top = scratch.Dir("top");
  int at = open(top.c_str(), O_RDONLY | O_DIRECTORY);
  for (int depth = 0; depth < 3000; depth++) {
    CHECK(mkdirat(at, "directory", 0755) == 0);
    const int file = openat(at, "file", O_WRONLY | O_CREAT, 0644);
    close(file);
    const int next = openat(at, "directory", O_RDONLY | O_DIRECTORY);
    close(at);
    at = next;
  }
  close(at);
  const size_t before = OpenDescriptors();
  auto usage = tree::Usage(top, kNever);
  CHECK(!usage.ok() && usage.error().fault == Fault::kLimit);
  CHECK_OK(tree::RemoveTree(top, kNever));
  CHECK(!Exists(top));
  CHECK_EQ(OpenDescriptors(), before);
}

void StrangeTrees() {
  const Scratch scratch;
  CHECK_OK(tree::RemoveTree(scratch / "missing", kNever));
  CHECK_OK(tree::RemoveTree(scratch / "missing/too", kNever));
  Put(scratch / "outside", "stays");
  const std::string kept = scratch.Dir("kept");
  Put(kept + "/file", "stays");
  CHECK(symlink(kept.c_str(), (scratch / "link").c_str()) == 0);
  CHECK_OK(tree::RemoveTree(scratch / "link", kNever));
  const std::string top = scratch.Dir("top");
  CHECK(symlink(kept.c_str(), (top + "/link").c_str()) == 0);
  CHECK(symlink("../outside", (top + "/other").c_str()) == 0);
  CHECK(mknod((top + "/fifo").c_str(), S_IFIFO, 0) == 0);
  CHECK(mkdir((top + "/locked").c_str(), 0) == 0);
  Put(top + "/locked/inside", "x", 0);
  Put(top + "/immutable", "x");
  const int fd = open((top + "/immutable").c_str(), O_RDONLY);
  int flags = FS_IMMUTABLE_FL;
  CHECK(ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0);
  close(fd);
  for (int i = 0; i < 5000; i++) Put(top + "/locked/" + std::to_string(i), "");
  CHECK_OK(tree::RemoveTree(top, kNever));
  CHECK(!Exists(top));
  CHECK_EQ(Get(kept + "/file"), std::string("stays"));
  CHECK_EQ(Get(scratch / "outside"), std::string("stays"));
}

// A mount inside the tree is an error, and what is mounted there stays.
void CrossesNoMount() {
  const Scratch scratch;
  const std::string top = scratch.Dir("top"), precious = scratch.Dir("precious");
  Put(precious + "/file", "stays");
  CHECK(mkdir((top + "/mnt").c_str(), 0755) == 0);
  CHECK(mount(precious.c_str(), (top + "/mnt").c_str(), nullptr, MS_BIND, nullptr) == 0);
  auto removed = tree::RemoveTree(top, kNever);
  CHECK(!removed.ok() && (removed.error().err == EXDEV || removed.error().err == EBUSY));
  CHECK_EQ(Get(precious + "/file"), std::string("stays"));
  CHECK(umount2((top + "/mnt").c_str(), MNT_DETACH) == 0);
  CHECK_OK(tree::RemoveTree(top, kNever));
}

void StopsWhenAsked() {
  const Scratch scratch;
  const std::string top = scratch.Dir("top");
  Put(top + "/file", "x");
  CancelToken cancelled;
  cancelled.Cancel();
  const auto stopped = [](const auto& result) { return !result.ok() && result.error().fault == Fault::kCancelled; };
  CHECK(stopped(tree::RemoveTree(top, cancelled)));
  CHECK(stopped(tree::Usage(top, cancelled)));
  CHECK(stopped(tree::CopyTree(top, scratch.Dir("copy"), cancelled)));
  tree::DiffRequest request;
  request.upper = {{top}, tree::Whiteouts::kOverlay};
  StringSink sink;
  CHECK(stopped(pack::WriteTreeTar(request, sink, cancelled)));
  CHECK(stopped(tree::Changes(request, cancelled)));
  CHECK(Exists(top + "/file"));
}

void SizesAndCopies() {
  const Scratch scratch;
  const std::string top = scratch.Dir("top");
  CHECK(mkdir((top + "/d").c_str(), 0750) == 0);
  Put(top + "/d/a", "12345");
  CHECK(link((top + "/d/a").c_str(), (top + "/b").c_str()) == 0);
  CHECK(symlink("123", (top + "/s").c_str()) == 0);
  CHECK(lsetxattr((top + "/s").c_str(), "trusted.on-link", "v", 1, 0) == 0);
  CHECK(lsetxattr((top + "/d").c_str(), "trusted.overlay.opaque", "y", 1, 0) == 0);
  const int fd = open((top + "/sparse").c_str(), O_WRONLY | O_CREAT, 04711);
  CHECK(ftruncate(fd, 8 << 20) == 0);
  CHECK(pwrite(fd, "x", 1, 5 << 20) == 1);
  close(fd);
  SetTime(top + "/d", 1000, 123456789);
  auto usage = tree::Usage(top, kNever);
  CHECK_OK(usage);
  CHECK_EQ(usage->size, 5U + 3U + (8U << 20));
  CHECK_EQ(usage->inodes, 5U);
  CHECK(usage->allocated < (1U << 20));
  const std::string copy = scratch.Dir("copy");
  CHECK_OK(tree::CopyTree(top, copy, kNever));
  CHECK(SameTree(ReadTree(top), ReadTree(copy)));
  auto copied = tree::Usage(copy, kNever);
  CHECK_OK(copied);
  CHECK_EQ(copied->inodes, usage->inodes);
  CHECK(copied->allocated < (1U << 20));
}

}  // namespace

int main() {
  const size_t before = OpenDescriptors();
  DeepTree();
  StrangeTrees();
  CrossesNoMount();
  StopsWhenAsked();
  SizesAndCopies();
  CHECK_EQ(OpenDescriptors(), before);
  return Finish();
}
