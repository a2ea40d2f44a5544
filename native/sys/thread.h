// Thread: one pthread that runs a function once; joined by Join() or by the destructor. Owned by one thread at a time.
// std::thread is not used: without exceptions it aborts the process where the kernel gives no thread.
#pragma once

#include <pthread.h>

#include <functional>
#include <memory>

#include "sys/result.h"

namespace layerstore::sys {

struct ThreadOptions {
  // At most 15 bytes, shown by `ps -T` and debuggers.
  const char* name = "layerstore";
  // The thread unshares its file-system context (CLONE_FS) and sets its umask to 0 before `body` runs, so that neither
  // chdir nor umask reaches the process. Start() fails with syscall "unshare" where that is not allowed.
  bool private_fs = false;
  // Bytes; 0: the default of the C library.
  size_t stack_size = 0;
};

class Thread {
 public:
  Thread() = default;
  Thread(Thread&& other) noexcept;
  Thread& operator=(Thread&& other) noexcept;
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;
  ~Thread() { Join(); }

  static Result<Thread> Start(std::function<void()> body, const ThreadOptions& options = {});

  // Waits until `body` has returned. Does nothing without a thread, or on a second call.
  void Join();
  [[nodiscard]] bool joinable() const { return running_; }

 private:
  pthread_t thread_{};
  bool running_ = false;
};

}  // namespace layerstore::sys
