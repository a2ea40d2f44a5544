// BlockSink: a ByteSink whose bytes JavaScript pulls, as blocks. One native thread calls Write and Finish; the
// JavaScript thread calls Take; anyone calls Close. Holds at most kMaxBlocks full blocks and the one that is being
// filled.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <variant>

#include "binding/block_pool.h"
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

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<FilledBlock> blocks_;
  std::optional<Error> error_;
  bool finished_ = false;
  bool closed_ = false;
  bool wanted_ = false;
};

}  // namespace layerstore::binding
