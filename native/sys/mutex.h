// Mutex, MutexLock and Condition: std::mutex and its companions with clang's thread-safety attributes, so that
// -Wthread-safety finds every use of a guarded member without its mutex. Conditions have no predicates: a lambda is a
// function of its own to that analysis and holds nothing, so callers wait in a loop. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define LS_THREAD_ATTRIBUTE(attribute) __attribute__((attribute))
#else
#define LS_THREAD_ATTRIBUTE(attribute)
#endif
// Of a member: used only while the mutex is held.
#define LS_GUARDED_BY(mutex) LS_THREAD_ATTRIBUTE(guarded_by(mutex))
// Of a function: called only while the mutex is held.
#define LS_REQUIRES(mutex) LS_THREAD_ATTRIBUTE(requires_capability(mutex))

namespace layerstore::sys {

class LS_THREAD_ATTRIBUTE(capability("mutex")) Mutex {
 private:
  friend class MutexLock;
  std::mutex mutex_;
};

class LS_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) LS_THREAD_ATTRIBUTE(acquire_capability(mutex)) : lock_(mutex.mutex_) {}
  ~MutexLock() LS_THREAD_ATTRIBUTE(release_capability()) {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  // For work without the mutex in between.
  void Unlock() LS_THREAD_ATTRIBUTE(release_capability()) { lock_.unlock(); }
  void Lock() LS_THREAD_ATTRIBUTE(acquire_capability()) { lock_.lock(); }

 private:
  friend class Condition;
  std::unique_lock<std::mutex> lock_;
};

class Condition {
 public:
  // May return for no reason.
  void Wait(MutexLock& lock) { changed_.wait(lock.lock_); }
  // False: `until` is over.
  bool WaitUntil(MutexLock& lock, std::chrono::steady_clock::time_point until) {
    return changed_.wait_until(lock.lock_, until) == std::cv_status::no_timeout;
  }
  void NotifyOne() { changed_.notify_one(); }
  void NotifyAll() { changed_.notify_all(); }

 private:
  std::condition_variable changed_;
};

}  // namespace layerstore::sys
