// ThreadPool: threads for blocking work. Threads are started when work finds none idle, and end after some seconds
// without any. Submit() and Close() belong to one thread, which is none of the pool's.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <vector>

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

  std::deque<Work>& QueueOf(TaskClass task_class);
  Result<void> AddThread();
  void Loop(Threads::iterator self);
  // Number of queued works that a thread may begin now.
  [[nodiscard]] size_t Ready() const;
  Work Take();
  std::vector<Thread> TakeEnded();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> streams_;  // kStreamBound
  std::deque<Work> short_;
  std::deque<Work> blocking_;
  Threads threads_;
  std::vector<Thread> ended_;  // to be joined by somebody else
  size_t idle_ = 0;
  size_t waiting_ = 0;        // works of kStreamBound that are queued or run
  size_t short_running_ = 0;  // at most kShortAtOnce
  bool closing_ = false;
};

}  // namespace layerstore::sys
