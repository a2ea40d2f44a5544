#include "mount/deferred_teardown.h"

#include <utility>

namespace layerstore {

void DeferredTeardown::End() {
  std::unique_lock lock(mutex_);
  for (size_t left = kept_.size(); left > 0 && !kept_.empty(); --left) {
    UniqueFd ending = std::move(kept_.front());
    kept_.pop_front();
    lock.unlock();
    ending.reset();
    lock.lock();
  }
}

}  // namespace layerstore
