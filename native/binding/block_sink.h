// BlockSink: a ByteSink whose bytes JavaScript pulls, as blocks. One native thread calls Write and Finish; the
// JavaScript thread calls Take; anyone calls Close. Holds at most kMaxBlocks full blocks and the one that is being
// filled.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <variant>

#include "binding/block_pool.h"
#include "sys/mutex.h"
#include "sys/stream.h"

namespace layerstore::binding {

struct FilledBlock {
  Block block;
  size_t size = 0;
};
struct EndOfBlocks {};
struct NotYet {};

class BlockSink : public ByteSink {
 public:
  // `ready` is called on the writing thread, once for each Take that found nothing.
  explicit BlockSink(std::function<void()> ready) : ready_(std::move(ready)) {}

  Result<void> Write(std::span<const uint8_t> bytes) override;
  // Ends the stream: no Write after it. The reader gets all written blocks before an error.
  void Finish(std::optional<Error> error);
  // From now on Write fails with kCancelled; blocks that were not taken are dropped.
  void Close();

  std::variant<NotYet, FilledBlock, EndOfBlocks, Error> Take();

 private:
  static constexpr size_t kMaxBlocks = 12;

  // Queues the current block for the reader; false if the sink is closed.
  bool Flush();

  std::function<void()> ready_;
  std::shared_ptr<BlockPool> pool_ = std::make_shared<BlockPool>();
  FilledBlock current_;  // the writing thread's

  sys::Mutex mutex_;
  sys::Condition changed_;
  std::deque<FilledBlock> blocks_ LS_GUARDED_BY(mutex_);
  std::optional<Error> error_ LS_GUARDED_BY(mutex_);
  bool finished_ LS_GUARDED_BY(mutex_) = false;
  bool closed_ LS_GUARDED_BY(mutex_) = false;
  bool wanted_ LS_GUARDED_BY(mutex_) = false;
};

}  // namespace layerstore::binding
