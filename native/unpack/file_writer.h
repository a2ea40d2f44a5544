// FileWriter: fills and closes small files on a thread of its own while the applying thread makes the next ones. That
// thread alone calls it; the writer's ends in the destructor. Files are handed over many at a time, since waking a
// thread costs more than writing one.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sys/mutex.h"
#include "sys/thread.h"
#include "sys/unique_fd.h"
#include "tree/entry_metadata.h"
#include "unpack/block_queue.h"

namespace layerstore::unpack {

class FileWriter {
 public:
  // Larger ones are written by whoever reads them: a hand-over would save little, and hold many blocks.
  static constexpr uint64_t kMaxFile = uint64_t{256} << 10;

  // A regular file that was just made, and all that it gets.
  struct File {
    UniqueFd fd;
    std::vector<std::span<const uint8_t>> pieces;  // in blocks that Keep() was told of
    tree::EntryMetadata metadata;
    tree::ApplyFlags flags;
    std::string path;  // for errors
  };

  explicit FileWriter(const tree::Creator& creator);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  // False: too many files wait already, so the caller writes the next one itself.
  [[nodiscard]] bool HasRoom() const { return open_ < max_open_; }
  // Pieces of the next file lie in it.
  void Keep(const BlockQueue::Ref& block);
  // As Flush().
  Result<void> Add(File file);
  // Hands over what was added, and lets go of its blocks. Fails with what went wrong with any file before.
  Result<void> Flush();
  // All files are filled and closed.
  Result<void> Drain();

 private:
  struct Batch {
    std::vector<File> files;
    std::vector<BlockQueue::Ref> blocks;
  };
  static constexpr size_t kFilesAtOnce = 64;
  // Files of all writers of the process that are open and wait: part of what the process may have open at most.
  static constexpr uint64_t kMaxOpen = 256;
  static constexpr uint64_t kShareOfLimit = 8;
  static std::atomic<uint64_t> open_;

  void Run();
  Result<void> WriteAll(Batch batch);
  Result<void> Write(File& file) const;

  const tree::Creator creator_;
  uint64_t max_open_ = kMaxOpen;
  Batch batch_;  // of the calling thread

  sys::Mutex mutex_;
  sys::Condition changed_;
  std::deque<Batch> batches_ LS_GUARDED_BY(mutex_);
  bool busy_ LS_GUARDED_BY(mutex_) = false;
  bool ended_ LS_GUARDED_BY(mutex_) = false;
  std::optional<Error> error_ LS_GUARDED_BY(mutex_);
  sys::Thread thread_;
};

}  // namespace layerstore::unpack
