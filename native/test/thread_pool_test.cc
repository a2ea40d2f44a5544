// native/sys/thread_pool: order, limits by task_class, threads that come and go.
#include "sys/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <latch>
#include <mutex>
#include <vector>

#include "check.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

// Works that stay until they are let go; how many are in there, and the most that ever were.
class Room {
 public:
  void Stay() {
    std::unique_lock lock(mutex_);
    most_ = std::max(most_, ++inside_);
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
    --inside_;
  }
  void AwaitInside(size_t count) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, std::chrono::seconds(30), [&] { return inside_ >= count; }));
  }
  void Open() {
    const std::scoped_lock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  size_t most() {
    const std::scoped_lock lock(mutex_);
    return most_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t inside_ = 0;
  size_t most_ = 0;
  bool open_ = false;
};

void BriefIsLimited() {
  Room room;
  std::atomic<size_t> ran = 0;
  sys::ThreadPool pool;
  constexpr size_t kShort = sys::ThreadPool::kShortAtOnce * 3;
  for (size_t i = 0; i < kShort; ++i) {
    CHECK_OK(pool.Submit(
        [&] {
          room.Stay();
          ran++;
        },
        sys::TaskClass::kShort));
  }
  room.AwaitInside(sys::ThreadPool::kShortAtOnce);
  // Brief work that is stuck keeps nothing else waiting.
  std::latch steady(1);
  CHECK_OK(pool.Submit([&] { steady.count_down(); }, sys::TaskClass::kBlocking));
  steady.wait();
  room.Open();
  pool.Close();
  CHECK(ran == kShort);
  CHECK(room.most() == sys::ThreadPool::kShortAtOnce);
}

void SteadyIsLimitedAndWaitsIsNot() {
  Room room;
  std::atomic<size_t> ran = 0;
  sys::ThreadPool pool;
  for (size_t i = 0; i < sys::ThreadPool::kMaxThreads + 9; ++i) {
    CHECK_OK(pool.Submit(
        [&] {
          room.Stay();
          ran++;
        },
        sys::TaskClass::kBlocking));
  }
  room.AwaitInside(sys::ThreadPool::kMaxThreads);
  std::latch streams(3);
  for (int i = 0; i < 3; ++i) CHECK_OK(pool.Submit([&] { streams.arrive_and_wait(); }, sys::TaskClass::kStreamBound));
  // Two threads are free for one another only if each of the three has its own.
  streams.wait();
  room.Open();
  pool.Close();
  CHECK(ran == sys::ThreadPool::kMaxThreads + 9);
}

// With one thread at it works begin in the order in which they came.
void Order() {
  sys::ThreadPool pool;
  std::mutex mutex;
  std::vector<int> order;
  const auto note = [&](int n) {
    const std::scoped_lock lock(mutex);
    order.push_back(n);
  };
  Room room;
  for (size_t i = 0; i < sys::ThreadPool::kShortAtOnce - 1; ++i)
    CHECK_OK(pool.Submit([&] { room.Stay(); }, sys::TaskClass::kShort));
  room.AwaitInside(sys::ThreadPool::kShortAtOnce - 1);
  std::latch done(200);
  for (int i = 0; i < 200; ++i) {
    CHECK_OK(pool.Submit(
        [&, i] {
          note(i);
          done.count_down();
        },
        sys::TaskClass::kShort));
  }
  done.wait();
  CHECK(std::ranges::is_sorted(order));
  room.Open();
}

// Submitted in a stream, by bursts, of all paces: all of it runs, also what is queued when the pool closes.
void NothingIsForgotten() {
  std::atomic<int> ran = 0;
  {
    sys::ThreadPool pool;
    for (int i = 0; i < 20'000; ++i) {
      constexpr sys::TaskClass kPaces[] = {sys::TaskClass::kShort, sys::TaskClass::kBlocking, sys::TaskClass::kShort,
                                           sys::TaskClass::kStreamBound};
      CHECK_OK(pool.Submit([&] { ran++; }, kPaces[i % (i % 64 == 0 ? 4 : 3)]));
    }
  }
  CHECK(ran == 20'000);
}

}  // namespace

int main() {
  BriefIsLimited();
  SteadyIsLimitedAndWaitsIsNot();
  Order();
  NothingIsForgotten();
  return Finish();
}
