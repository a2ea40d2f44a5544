#include "sys/control.h"

#include <sys/eventfd.h>
#include <unistd.h>

namespace layerstore {
namespace {

// Fails only where the counter is at its limit, and then the descriptor is readable already.
void Wake(int descriptor) { (void)eventfd_write(descriptor, 1); }

}  // namespace

CancelToken::~CancelToken() {
  const int wake = wake_.load();
  if (wake >= 0) close(wake);
}

// Either Cancel() finds the descriptor, or WakeDescriptor() finds the cancellation after it has published it: both
// write one of the two atomics and read the other, in one total order.
void CancelToken::Cancel() {
  cancelled_.store(true);
  const int wake = wake_.load();
  if (wake >= 0) Wake(wake);
}

Result<int> CancelToken::WakeDescriptor() const {
  int wake = wake_.load();
  if (wake >= 0) return wake;
  const int made = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (made < 0) return SysError("eventfd");
  if (!wake_.compare_exchange_strong(wake, made)) {
    close(made);
    return wake;
  }
  if (cancelled_.load()) Wake(made);
  return made;
}

}  // namespace layerstore
