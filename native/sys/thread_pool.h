// ThreadPool: threads for blocking work. Threads are started when work finds none idle, and end after some seconds
// without any. Submit() and Close() belong to one thread, which is none of the pool's.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <vector>

#include "sys/mutex.h"
#include "sys/result.h"
#include "sys/thread.h"

namespace layerstore::sys {

enum class TaskClass : uint8_t {
  kShort,        // short, no disk I/O; limited concurrency, since many at once contend for the same directories
  kBlocking,     // runs long, or waits for a disk or for the kernel, as any number can at once
  kStreamBound,  // bound to a stream: it waits for the other end, which is JavaScript's
};

class ThreadPool {
 public:
  static constexpr size_t kMaxThreads = 64;
  static constexpr size_t kShortAtOnce = 6;

  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() { Close(); }

  // Work of one class begins in the order it came in: stream-bound work first, then short work. kStreamBound gets a
  // thread beyond the limit at once, so that neither streams nor others keep each other waiting. Fails only where the
  // kernel gives not even a first thread.
  Result<void> Submit(std::function<void()> work, TaskClass task_class);

  // Runs what was submitted, then ends and joins every thread. Nothing is submitted after it.
  void Close();

 private:
  struct Work {
    std::function<void()> run;
    TaskClass task_class = TaskClass::kBlocking;
  };
  using Threads = std::list<Thread>;

  std::deque<Work>& QueueOf(TaskClass task_class) LS_REQUIRES(mutex_);
  Result<void> AddThread() LS_REQUIRES(mutex_);
  void Loop(Threads::iterator self);
  // Number of queued works that a thread may begin now.
  [[nodiscard]] size_t Ready() const LS_REQUIRES(mutex_);
  Work Take() LS_REQUIRES(mutex_);
  std::vector<Thread> TakeEnded() LS_REQUIRES(mutex_);

  Mutex mutex_;
  Condition changed_;
  std::deque<Work> streams_ LS_GUARDED_BY(mutex_);  // kStreamBound
  std::deque<Work> short_ LS_GUARDED_BY(mutex_);
  std::deque<Work> blocking_ LS_GUARDED_BY(mutex_);
  Threads threads_ LS_GUARDED_BY(mutex_);
  std::vector<Thread> ended_ LS_GUARDED_BY(mutex_);  // to be joined by somebody else
  size_t idle_ LS_GUARDED_BY(mutex_) = 0;
  size_t waiting_ LS_GUARDED_BY(mutex_) = 0;        // works of kStreamBound that are queued or run
  size_t short_running_ LS_GUARDED_BY(mutex_) = 0;  // at most kShortAtOnce
  bool closing_ LS_GUARDED_BY(mutex_) = false;
};

}  // namespace layerstore::sys
