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

namespace layerstore {

enum class Pace : uint8_t {
  kBrief,   // a few system calls that wait for no disk: many at once would only contend for the same directories
  kSteady,  // runs long, or waits for a disk or for the kernel, as any number can at once
  kWaits,   // waits for whoever submitted it, as a stream does for its other end
};

class ThreadPool {
 public:
  static constexpr size_t kMaxThreads = 64;
  static constexpr size_t kBriefAtOnce = 6;

  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() { Close(); }

  // Work of one pace begins in the order it came in: what waits first, then what is brief. kWaits gets a thread beyond
  // the limit at once, so that neither streams nor others keep each other waiting. Fails only where the kernel gives
  // not even a first thread.
  Result<void> Submit(std::function<void()> work, Pace pace);

  // Runs what was submitted, then ends and joins every thread. Nothing is submitted after it.
  void Close();

 private:
  struct Work {
    std::function<void()> run;
    Pace pace = Pace::kSteady;
  };
  using Threads = std::list<Thread>;

  std::deque<Work>& QueueOf(Pace pace);
  Result<void> AddThread();
  void Loop(Threads::iterator self);
  // Works that a thread could begin now.
  [[nodiscard]] size_t Ready() const;
  Work Take();
  std::vector<Thread> TakeEnded();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> streams_;  // kWaits
  std::deque<Work> brief_;
  std::deque<Work> steady_;
  Threads threads_;
  std::vector<Thread> ended_;  // to be joined by somebody else
  size_t idle_ = 0;
  size_t waiting_ = 0;        // works of kWaits that are queued or run
  size_t brief_running_ = 0;  // at most kBriefAtOnce
  bool closing_ = false;
};

}  // namespace layerstore
