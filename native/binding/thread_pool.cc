#include "binding/thread_pool.h"

#include <chrono>
#include <utility>

namespace layerstore::binding {
namespace {

constexpr std::chrono::seconds kIdleTime{3};

}  // namespace

std::vector<Thread> ThreadPool::TakeEnded() { return std::exchange(ended_, {}); }

Result<void> ThreadPool::AddThread() {
  const auto self = threads_.emplace(threads_.end());
  // The mutex is held: the new thread waits for it before it reads *self.
  Result<Thread> started = Thread::Start([this, self] { Loop(self); }, {"ls-worker", false, 0});
  if (!started) {
    threads_.erase(self);
    return started.error();
  }
  *self = std::move(*started);
  return {};
}

Result<void> ThreadPool::Submit(std::function<void()> work, bool waits) {
  std::vector<Thread> ended;  // joined after the mutex is free
  std::unique_lock lock(mutex_);
  ended = TakeEnded();
  if (waits) ++waiting_;
  if (idle_ <= queue_.size() && (waits || threads_.size() < kMaxThreads + waiting_)) {
    Result<void> added = AddThread();
    // A stream without a thread would wait for ever behind others; other work waits for a busy thread.
    if (!added && (waits || threads_.empty())) {
      if (waits) --waiting_;
      return added;
    }
  }
  queue_.push_back({std::move(work), waits});
  // Whoever wakes needs the mutex at once, and would sleep again where it is held.
  lock.unlock();
  changed_.notify_one();
  return {};
}

void ThreadPool::Loop(Threads::iterator self) {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (queue_.empty()) {
      if (closing_) break;
      ++idle_;
      const bool woken = changed_.wait_for(lock, kIdleTime, [&] { return !queue_.empty() || closing_; });
      --idle_;
      if (!woken) break;
      continue;
    }
    Work work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    work.run();
    work.run = nullptr;  // what it captured is released before the lock is taken
    lock.lock();
    if (work.waits) --waiting_;
  }
  ended_.push_back(std::move(*self));
  threads_.erase(self);
  changed_.notify_all();
}

void ThreadPool::Close() {
  std::vector<Thread> ended;
  std::unique_lock lock(mutex_);
  closing_ = true;
  changed_.notify_all();
  changed_.wait(lock, [&] { return threads_.empty(); });
  ended = TakeEnded();
  lock.unlock();
  for (Thread& thread : ended) thread.Join();
}

}  // namespace layerstore::binding
