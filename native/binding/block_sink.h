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
  // Nothing is written after it. Blocks written before an error are given out before the error.
  void Finish(std::optional<Error> error);
  // Write fails with kCancelled from now on; what was not taken is dropped.
  void Close();

  std::variant<NotYet, FilledBlock, EndOfBlocks, Error> Take();

 private:
  static constexpr size_t kMaxBlocks = 12;

  // Hands the current block over; false where the sink is closed.
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
