// native/mount: each tier that this kernel has, side by side on several threads. Needs root; without it the refusal is
// checked.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "check.h"
#include "mount/mount_table.h"
#include "mount/overlay.h"
#include "mount/probe.h"
#include "mount/target.h"
#include "sys/open.h"
#include "sys/thread.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

mount::OverlayMount Prepare(const std::string& base, int lowers) {
  mount::OverlayMount mount;
  CHECK(mkdir(base.c_str(), 0700) == 0);
  for (int i = 0; i < lowers; i++) {
    const std::string lower = base + "/l" + std::to_string(i);
    CHECK(mkdir(lower.c_str(), 0755) == 0);
    CHECK(sys::OpenPath(lower + "/file" + std::to_string(i), O_CREAT | O_WRONLY, 0644).ok());
    mount.lowers.push_back(lower);
  }
  mount.upper = base + "/upper";
  mount.work = base + "/work";
  mount.target = base + "/merged";
  for (const std::string& path : {mount.upper, mount.work, mount.target}) CHECK(mkdir(path.c_str(), 0755) == 0);
  return mount;
}

void TestTier(const std::string& base, mount::MountTier tier) {
  mount::OverlayMount mount = Prepare(base, 40);
  mount.tier = tier;
  mount.options = {"index=off", "nodev"};
  for (int round = 0; round < 5; round++) {
    const Result<mount::MountTier> used = mount::MountOverlay(mount);
    CHECK(used.ok() && *used == tier);
    if (!used.ok()) std::fprintf(stderr, "%s\n", Describe(used.error()).c_str());
    CHECK(access((mount.target + "/file39").c_str(), F_OK) == 0);
    const Result<std::vector<mount::MountInfo>> table = mount::ReadMounts(base);
    CHECK(table.ok() && table->size() == 1 && (*table)[0].target == mount.target && (*table)[0].fs_type == "overlay");
    {
      const UniqueFd held(open(mount.target.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      const Result<void> busy = mount::Unmount(mount.target, false);
      CHECK(!busy.ok());
      const std::vector<mount::Holder> holders = mount::FindHolders(mount.target);
      CHECK(holders.size() == 1 && holders[0].pid == getpid());
    }
    CHECK(mount::Unmount(mount.target, false).ok());
    mount.options.push_back("nonsense=1");
    CHECK(!mount::MountOverlay(mount).ok());
    mount.options.pop_back();
    CHECK(mount::ReadMounts(base)->empty());
  }
}

}  // namespace

int main() {
  char base[] = "/var/tmp/layerstore-mount-test-XXXXXX";
  if (mkdtemp(base) == nullptr) return 1;
  if (geteuid() != 0) {
    mount::OverlayMount mount = Prepare(std::string(base) + "/refused", 1);
    const Result<mount::MountTier> used = mount::MountOverlay(mount);
    CHECK(!used.ok() && used.error().err == EPERM);
  } else {
    std::vector<mount::MountTier> tiers{mount::MountTier::kClassic};
    if (mount::ProbeMount().lowerdir_plus == "yes") tiers.push_back(mount::MountTier::kLowerdirPlus);
    if (mount::ProbeMount().fsconfig_fd == "yes") tiers.push_back(mount::MountTier::kFd);
    std::vector<sys::Thread> threads;
    for (const mount::MountTier tier : tiers) {
      const std::string directory = std::string(base) + "/" + std::to_string(static_cast<int>(tier));
      Result<sys::Thread> thread = sys::Thread::Start([directory, tier] { TestTier(directory, tier); });
      CHECK(thread.ok());
      threads.push_back(std::move(*thread));
    }
    for (sys::Thread& thread : threads) thread.Join();
  }
  const std::string clean = std::string("rm -rf ") + base;
  CHECK(std::system(clean.c_str()) == 0);
  return Finish();
}
