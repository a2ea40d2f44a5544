#include "sys/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace layerstore::sys {
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

std::deque<ThreadPool::Work>& ThreadPool::QueueOf(TaskClass task_class) {
  if (task_class == TaskClass::kStreamBound) return streams_;
  return task_class == TaskClass::kShort ? short_ : blocking_;
}

size_t ThreadPool::Ready() const {
  return streams_.size() + std::min(short_.size(), kShortAtOnce - short_running_) + blocking_.size();
}

ThreadPool::Work ThreadPool::Take() {
  std::deque<Work>* from = &blocking_;
  if (!short_.empty() && short_running_ < kShortAtOnce) from = &short_;
  if (!streams_.empty()) from = &streams_;
  Work work = std::move(from->front());
  from->pop_front();
  return work;
}

Result<void> ThreadPool::Submit(std::function<void()> work, TaskClass task_class) {
  const bool waits = task_class == TaskClass::kStreamBound;
  std::vector<Thread> ended;  // joined after the mutex is free
  MutexLock lock(mutex_);
  ended = TakeEnded();
  if (waits) ++waiting_;
  std::deque<Work>& queue = QueueOf(task_class);
  queue.push_back({std::move(work), task_class});
  const size_t ready = Ready();
  if (idle_ < ready && (waits || threads_.size() < kMaxThreads + waiting_)) {
    Result<void> added = AddThread();
    // A stream without a thread would wait for ever behind others; other work waits for a busy thread.
    if (!added && (waits || threads_.empty())) {
      queue.pop_back();
      if (waits) --waiting_;
      return added;
    }
  }
  // Whoever wakes needs the mutex at once, and would sleep again where it is held.
  lock.Unlock();
  if (ready > 0) changed_.NotifyOne();
  return {};
}

void ThreadPool::Loop(Threads::iterator self) {
  MutexLock lock(mutex_);
  for (;;) {
    if (Ready() == 0) {
      // Brief work that is left is for those who run some now.
      if (closing_) break;
      ++idle_;
      const auto until = std::chrono::steady_clock::now() + kIdleTime;
      while (Ready() == 0 && !closing_ && changed_.WaitUntil(lock, until)) continue;
      const bool woken = Ready() > 0 || closing_;
      --idle_;
      if (!woken) break;
      continue;
    }
    Work work = Take();
    if (work.task_class == TaskClass::kShort) ++short_running_;
    lock.Unlock();
    work.run();
    work.run = nullptr;  // what it captured is released before the lock is taken
    lock.Lock();
    if (work.task_class == TaskClass::kShort) --short_running_;
    if (work.task_class == TaskClass::kStreamBound) --waiting_;
  }
  ended_.push_back(std::move(*self));
  threads_.erase(self);
  changed_.NotifyAll();
}

void ThreadPool::Close() {
  std::vector<Thread> ended;
  MutexLock lock(mutex_);
  closing_ = true;
  changed_.NotifyAll();
  while (!threads_.empty()) changed_.Wait(lock);
  ended = TakeEnded();
  lock.Unlock();
  for (Thread& thread : ended) thread.Join();
}

}  // namespace layerstore::sys
