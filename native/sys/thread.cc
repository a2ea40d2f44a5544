#include "sys/thread.h"

#include <sched.h>
#include <sys/stat.h>

#include <utility>

#include "sys/mutex.h"

namespace layerstore::sys {
namespace {

// What the new thread needs; shared only while Start() waits for the outcome of unshare.
struct StartBlock {
  std::function<void()> body;
  bool private_fs = false;
  const char* name = "";

  Mutex mutex;
  Condition changed;
  bool ready LS_GUARDED_BY(mutex) = false;
  int unshare_errno LS_GUARDED_BY(mutex) = 0;
};

void* RunThread(void* argument) {
  // Its own reference: Start() may return, and drop its own, while the body runs.
  std::unique_ptr<std::shared_ptr<StartBlock>> holder(static_cast<std::shared_ptr<StartBlock>*>(argument));
  const std::shared_ptr<StartBlock> block = *holder;
  holder.reset();
  pthread_setname_np(pthread_self(), block->name);
  if (block->private_fs) {
    const int failed = unshare(CLONE_FS) == 0 ? 0 : errno;
    if (failed == 0) umask(0);
    {
      const MutexLock lock(block->mutex);
      block->ready = true;
      block->unshare_errno = failed;
      block->changed.NotifyOne();
    }
    if (failed != 0) return nullptr;
  }
  block->body();
  return nullptr;
}

}  // namespace

Thread::Thread(Thread&& other) noexcept : thread_(other.thread_), running_(std::exchange(other.running_, false)) {}

Thread& Thread::operator=(Thread&& other) noexcept {
  if (this != &other) {
    Join();
    thread_ = other.thread_;
    running_ = std::exchange(other.running_, false);
  }
  return *this;
}

Result<Thread> Thread::Start(std::function<void()> body, const ThreadOptions& options) {
  auto block = std::make_shared<StartBlock>();
  block->body = std::move(body);
  block->private_fs = options.private_fs;
  block->name = options.name;

  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (options.stack_size != 0) pthread_attr_setstacksize(&attributes, options.stack_size);
  auto holder = std::make_unique<std::shared_ptr<StartBlock>>(block);
  Thread thread;
  const int failed = pthread_create(&thread.thread_, &attributes, RunThread, holder.get());
  pthread_attr_destroy(&attributes);
  if (failed != 0) {
    errno = failed;
    return SysError("pthread_create");
  }
  (void)holder.release();
  thread.running_ = true;

  if (options.private_fs) {
    MutexLock lock(block->mutex);
    while (!block->ready) block->changed.Wait(lock);
    if (block->unshare_errno != 0) {
      errno = block->unshare_errno;
      return SysError("unshare");
    }
  }
  return thread;
}

void Thread::Join() {
  if (std::exchange(running_, false)) pthread_join(thread_, nullptr);
}

}  // namespace layerstore::sys
