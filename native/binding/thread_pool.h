// ThreadPool: threads for blocking work, one pool an environment. Threads are started when work finds none idle, and
// end after some seconds without any. Submit() and Close() belong to the JavaScript thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <vector>

#include "sys/result.h"
#include "sys/thread.h"

namespace layerstore::binding {

class ThreadPool {
 public:
  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() { Close(); }

  // `waits`: the work blocks on JavaScript (a stream's other end); it gets a thread beyond the limit, so that no number
  // of idle streams keeps mounts or syncs waiting. Fails only where the kernel gives not even a first thread.
  Result<void> Submit(std::function<void()> work, bool waits);

  // Runs what was submitted, then ends and joins every thread. Nothing is submitted after it.
  void Close();

 private:
  // Many: an unmount waits for a grace period of the kernel, which any number of them share.
  static constexpr size_t kMaxThreads = 64;

  struct Work {
    std::function<void()> run;
    bool waits;
  };
  using Threads = std::list<Thread>;

  Result<void> AddThread();
  void Loop(Threads::iterator self);
  std::vector<Thread> TakeEnded();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> queue_;
  Threads threads_;
  std::vector<Thread> ended_;  // to be joined by somebody else
  size_t idle_ = 0;
  size_t waiting_ = 0;  // works with `waits` that are queued or run
  bool closing_ = false;
};

}  // namespace layerstore::binding
