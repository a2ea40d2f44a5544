// DeferredTeardown: file systems whose mounts are gone, kept in being until End(). The end of an overlay syncs the
// whole file system below it, which takes longer than all else about an unmount: whoever promised no durability need
// not wait for it. Any thread; End() and the destructor block.
#pragma once

#include <deque>
#include <mutex>
#include <utility>

#include "sys/unique_fd.h"

namespace layerstore {

class DeferredTeardown {
 public:
  void Keep(UniqueFd picked) {
    const std::scoped_lock lock(mutex_);
    kept_.push_back(std::move(picked));
  }

  // Ends what is kept now, one after the other, first come first. Several threads at it share the work, and the
  // journal's commits that their syncs wait for.
  void End();

 private:
  std::mutex mutex_;
  std::deque<UniqueFd> kept_;
};

}  // namespace layerstore
