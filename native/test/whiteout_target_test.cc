// WhiteoutFilter: which names a stack of layers has. Mounts with their mount point: what is there after each way in
// which they can fail. As root only for the mounts.
#include <cerrno>

#include "mount/overlay.h"
#include "mount/target.h"
#include "pack/pack.h"
#include "sys/thread.h"
#include "test/tree_support.h"
#include "tree/diff_stack.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

bool Exists(const std::string& path) {
  struct stat st {};
  return lstat(path.c_str(), &st) == 0;
}

void Whiteout(const std::string& path) { CHECK(mknod(path.c_str(), S_IFCHR, 0) == 0); }

bool Needs(tree::WhiteoutFilter& filter, const std::string& path) {
  auto needs = filter.Needs(path);
  CHECK_OK(needs);
  return needs.ok() && *needs;
}

void Filter() {
  const Scratch scratch;
  const std::string top = scratch.Dir("top");
  const std::string base = scratch.Dir("base");
  for (const std::string& layer : {top, base}) {
    CHECK(mkdir((layer + "/d").c_str(), 0755) == 0);
    CHECK(mkdir((layer + "/hidden").c_str(), 0755) == 0);
  }
  CHECK(lsetxattr((top + "/hidden").c_str(), "trusted.overlay.opaque", "y", 1, 0) == 0);
  Put(base + "/file", "x");
  Put(base + "/d/below", "x");
  Put(base + "/d/gone", "x");
  Put(base + "/hidden/old", "x");
  Put(top + "/d/new", "x");
  Put(top + "/hidden/kept", "x");
  Whiteout(top + "/d/gone");
  CHECK(symlink("d", (base + "/link").c_str()) == 0);

  auto opened = tree::WhiteoutFilter::Open({{top, base}, tree::Whiteouts::kOverlay});
  CHECK_OK(opened);
  tree::WhiteoutFilter& filter = **opened;
  // In any order, the same answers: the directory that was entered last is kept.
  for (int round = 0; round < 2; round++) {
    CHECK(Needs(filter, "file"));
    CHECK(Needs(filter, "d"));
    CHECK(Needs(filter, "d/below"));
    CHECK(Needs(filter, "d/new"));
    CHECK(!Needs(filter, "d/gone"));
    CHECK(!Needs(filter, "d/gone/further"));
    CHECK(!Needs(filter, "d/missing"));
    CHECK(!Needs(filter, "missing/name"));
    CHECK(!Needs(filter, "file/name"));
    CHECK(!Needs(filter, "link/below"));
    CHECK(Needs(filter, "link"));
    CHECK(Needs(filter, "hidden/kept"));
    CHECK(!Needs(filter, "hidden/old"));
    CHECK(Needs(filter, "d/below"));
    CHECK(!Needs(filter, "name"));
  }

  auto alone = tree::WhiteoutFilter::Open({{base}, tree::Whiteouts::kOverlay});
  CHECK_OK(alone);
  CHECK(Needs(**alone, "hidden/old"));
  CHECK(!tree::WhiteoutFilter::Open({{scratch / "missing"}, tree::Whiteouts::kOverlay}).ok());
}

// The filter at work: a whiteout in the tar of a layer only where the tree below has what it hides.
void FilteredTar() {
  const Scratch scratch;
  tree::DiffRequest request;
  request.upper = {{scratch.Dir("upper")}, tree::Whiteouts::kOverlay};
  request.lower = {{scratch.Dir("init"), scratch.Dir("parent")}, tree::Whiteouts::kOverlay};
  Put(scratch / "parent/there", "x");
  Put(scratch / "init/only-init", "x");
  Whiteout(scratch / "upper/there");
  Whiteout(scratch / "upper/only-init");
  const auto tar = [&] {
    StringSink sink;
    CHECK_OK(pack::WriteTreeTar(request, sink, CancelToken()));
    return sink.text;
  };
  CHECK(tar().find(".wh.only-init") != std::string::npos);
  request.whiteouts_of = tree::TreeStack{{scratch / "parent"}, tree::Whiteouts::kOverlay};
  const std::string filtered = tar();
  CHECK(filtered.find(".wh.there") != std::string::npos);
  CHECK(filtered.find(".wh.only-init") == std::string::npos);
}

// The size of one upper directory, which is read without a look at what lies below.
void SizeOfUpper() {
  const Scratch scratch;
  tree::DiffRequest request;
  request.upper = {{scratch.Dir("upper")}, tree::Whiteouts::kOverlay};
  request.lower = {{scratch.Dir("lower")}, tree::Whiteouts::kOverlay};
  CHECK(mkdir((scratch / "lower/old").c_str(), 0755) == 0);
  Put(scratch / "lower/old/seven", "1234567");
  const std::string upper = scratch / "upper";
  CHECK(mkdir((upper + "/d").c_str(), 0755) == 0);
  Put(upper + "/d/three", "123");
  CHECK(link((upper + "/d/three").c_str(), (upper + "/again").c_str()) == 0);
  CHECK(symlink("12345", (upper + "/link").c_str()) == 0);
  CHECK(mknod((upper + "/fifo").c_str(), S_IFIFO, 0) == 0);
  Whiteout(upper + "/old");
  const auto size = [&] {
    auto found = tree::DiffSize(request, CancelToken());
    CHECK_OK(found);
    return found.ok() ? *found : 0;
  };
  CHECK_EQ(size(), 8U);
  // Renamed by the kernel: what lies below counts too.
  CHECK(mkdir((upper + "/renamed").c_str(), 0755) == 0);
  CHECK(lsetxattr((upper + "/renamed").c_str(), "trusted.overlay.redirect", "old", 3, 0) == 0);
  CHECK_EQ(size(), 15U);
  CancelToken cancelled;
  cancelled.Cancel();
  auto stopped = tree::DiffSize(request, cancelled);
  CHECK(!stopped.ok() && stopped.error().fault == Fault::kCancelled);
}

void Targets() {
  const Scratch scratch;
  mount::OverlayMount mount;
  mount.lowers = {scratch.Dir("lower")};
  mount.upper = scratch.Dir("upper");
  mount.work = scratch.Dir("work");
  mount.target = scratch / "merged";
  Put(scratch / "lower/file", "x");

  const mode_t before = umask(077);
  auto made = mount::MountOnNewTarget(mount, 0750);
  umask(before);
  CHECK_OK(made);
  CHECK(Exists(mount.target + "/file"));
  struct stat root {};
  CHECK(stat(mount.target.c_str(), &root) == 0 && root.st_dev == made->device);

  // A second one finds the mount point there and leaves it.
  auto again = mount::MountOnNewTarget(mount, 0750);
  CHECK(!again.ok() && again.error().err == EEXIST);
  CHECK(Exists(mount.target + "/file"));

  // Another device's number: not ours.
  auto stranger = mount::UnmountAndRemove(mount.target, made->device + 1);
  CHECK(stranger.ok() && *stranger == mount::UnmountOutcome::kForeign);
  CHECK(Exists(mount.target + "/file"));

  {
    const UniqueFd held(open(mount.target.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    auto busy = mount::UnmountAndRemove(mount.target, made->device);
    CHECK(!busy.ok() && busy.error().err == EBUSY);
    CHECK(Exists(mount.target + "/file"));
  }
  auto done = mount::UnmountAndRemove(mount.target, made->device);
  CHECK(done.ok() && *done == mount::UnmountOutcome::kRemoved);
  CHECK(!Exists(mount.target));
  auto missing = mount::UnmountAndRemove(mount.target, made->device);
  CHECK(missing.ok() && *missing == mount::UnmountOutcome::kForeign);

  // A mount that fails takes its mount point with it.
  mount::OverlayMount wrong = mount;
  wrong.options = {"nonsense=1"};
  CHECK(!mount::MountOnNewTarget(wrong, 0750).ok());
  CHECK(!Exists(mount.target));
  wrong.target = scratch / "missing/merged";
  auto nowhere = mount::MountOnNewTarget(wrong, 0750);
  CHECK(!nowhere.ok() && nowhere.error().err == ENOENT);

  // Something in the directory below the mount: unmounted, and kept.
  CHECK(mkdir(mount.target.c_str(), 0755) == 0);
  Put(mount.target + "/stranger", "x");
  CHECK_OK(mount::MountOverlay(mount));
  CHECK(stat(mount.target.c_str(), &root) == 0);
  auto kept = mount::UnmountAndRemove(mount.target, root.st_dev);
  CHECK(kept.ok() && *kept == mount::UnmountOutcome::kTargetLeft);
  CHECK(Exists(mount.target + "/stranger"));
}

// index=on takes an upper directory that another overlay uses for an error, which tells when the old one has ended.
void DeferredTeardowns() {
  const Scratch scratch;
  mount::OverlayMount mount;
  mount.lowers = {scratch.Dir("lower")};
  mount.upper = scratch.Dir("upper");
  mount.work = scratch.Dir("work");
  mount.target = scratch / "merged";
  mount.options = {"index=on"};
  Put(scratch / "lower/file", "x");

  mount::DeferredTeardown teardown;
  teardown.End();  // nothing to end
  auto made = mount::MountOnNewTarget(mount, 0750);
  CHECK_OK(made);
  {
    const UniqueFd held(open(mount.target.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    auto busy = mount::UnmountAndRemove(mount.target, made->device, &teardown);
    CHECK(!busy.ok() && busy.error().err == EBUSY);
    CHECK(Exists(mount.target + "/file"));
  }
  auto done = mount::UnmountAndRemove(mount.target, made->device, &teardown);
  CHECK(done.ok() && *done == mount::UnmountOutcome::kRemoved);
  CHECK(!Exists(mount.target));
  auto early = mount::MountOnNewTarget(mount, 0750);
  CHECK(!early.ok() && early.error().err == EBUSY);
  CHECK(!Exists(mount.target));

  teardown.End();
  made = mount::MountOnNewTarget(mount, 0750);
  CHECK_OK(made);
  // Two threads at it end all that there is.
  done = mount::UnmountAndRemove(mount.target, made->device, &teardown);
  CHECK(done.ok() && *done == mount::UnmountOutcome::kRemoved);
  Result<sys::Thread> other = sys::Thread::Start([&] { teardown.End(); }, {"end", false, 0});
  CHECK(other.ok());
  teardown.End();
  other->Join();
  // Nor does one whose keeper is gone stay.
  {
    mount::DeferredTeardown dropped;
    made = mount::MountOnNewTarget(mount, 0750);
    CHECK_OK(made);
    CHECK(mount::UnmountAndRemove(mount.target, made->device, &dropped).ok());
  }
  made = mount::MountOnNewTarget(mount, 0750);
  CHECK_OK(made);
  CHECK(mount::UnmountAndRemove(mount.target, made->device).ok());
}

}  // namespace

int main() {
  Filter();
  FilteredTar();
  SizeOfUpper();
  Targets();
  DeferredTeardowns();
  return Finish();
}
