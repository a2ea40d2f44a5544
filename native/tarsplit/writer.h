// Writer: takes tar-split records from the splitting thread and encodes, compresses and writes them on a thread
// of its own. The file is made by Open() (0600, fails where it exists) and removed by the destructor unless Close() was
// well. One thread at a time calls it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "sys/mutex.h"
#include "sys/result.h"
#include "sys/thread.h"
#include "sys/unique_fd.h"

namespace layerstore::tarsplit {

class Writer {
 public:
  static Result<std::unique_ptr<Writer>> Open(const std::string& path);
  ~Writer();

  Result<void> AddSegment(std::string_view bytes);
  Result<void> AddFile(std::string_view name, uint64_t size, std::optional<uint64_t> crc);
  // Everything is written to the file and the thread has ended.
  Result<void> Close();

 private:
  explicit Writer(std::string path) : path_(std::move(path)) {}

  // Records wait in batches: few hand-overs, and memory is bounded.
  static constexpr size_t kBatchBytes = size_t{256} << 10;
  static constexpr size_t kBatches = 4;

  Result<void> Flush();
  void Run();
  Result<void> Encode();
  std::optional<std::string> NextBatch();

  std::string path_;
  UniqueFd file_;
  bool keep_ = false;
  std::string batch_;  // of the calling thread

  sys::Mutex mutex_;
  sys::Condition changed_;
  std::deque<std::string> batches_ LS_GUARDED_BY(mutex_);
  bool ended_ LS_GUARDED_BY(mutex_) = false;
  bool aborted_ LS_GUARDED_BY(mutex_) = false;
  std::optional<Error> error_ LS_GUARDED_BY(mutex_);
  sys::Thread thread_;
};

}  // namespace layerstore::tarsplit
