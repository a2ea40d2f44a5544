// Whole files, locks, syncs, and descriptors as byte streams. Functions keep no state; any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sys/control.h"
#include "sys/result.h"
#include "sys/stream.h"
#include "sys/unique_fd.h"

namespace layerstore::sys {

// The content of a small file, also of a file in /proc.
Result<std::string> ReadWholeFile(const std::string& path);
Result<std::string> ReadWholeFileAt(int directory, const char* name);

// write(2) until all is written.
Result<void> WriteFully(int fd, std::span<const uint8_t> bytes);

// read(2) until `into` is full or the file ends. Errors carry `path`.
Result<size_t> ReadFull(int fd, std::span<uint8_t> into, const std::string& path);

// Content of `from` (of `size` bytes) into the new file `to`: reflink, else copy_file_range of the data regions, else
// read and write. Holes stay holes.
Result<void> CopyData(int from, int to, uint64_t size, const std::string& path, const CancelToken& cancel);

// renameat2(2) on paths; `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE.
Result<void> RenameWithFlags(const std::string& from, const std::string& to, unsigned flags);

// Sets the mode of a file that was just made: the umask or a default ACL of its directory may have changed it. Does
// nothing where the mode is right already, which saves a journalled write.
Result<void> SetNewMode(const std::string& path, uint32_t permissions);

// flock of a file, made 0600 if missing. nullopt where another process holds it. Closing the descriptor releases the
// lock.
Result<std::optional<UniqueFd>> LockFile(const std::string& path, bool exclusive);
// Unlocks at once, also where a forked child still holds a copy of the descriptor.
void UnlockFile(UniqueFd lock);

// syncfs of the file systems that hold `paths`, each once.
Result<void> SyncFileSystems(const std::vector<std::string>& paths);

// FdSource: a file, or a range of one, as a ByteSource. Owns the descriptor.
class FdSource : public ByteSource {
 public:
  // A regular file, FIFO or device that is read from its beginning. EISDIR for a directory.
  static Result<std::unique_ptr<FdSource>> Open(const std::string& path);
  // `length` bytes from `offset` of a regular file. A file that ends inside them is Fault::kBadTar.
  static Result<std::unique_ptr<FdSource>> OpenRange(const std::string& path, uint64_t offset, uint64_t length);

  Result<size_t> Read(std::span<uint8_t> into) override;
  [[nodiscard]] std::optional<uint64_t> TotalBytes() const override { return size_; }
  // -1 for a range: a reader of the descriptor would not stop at the end of the range.
  [[nodiscard]] int fd() const override { return range_ ? -1 : fd_.get(); }

 private:
  FdSource(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  UniqueFd fd_;
  std::string path_;
  std::optional<uint64_t> size_;
  bool range_ = false;
  uint64_t left_ = 0;  // of a range
};

// FdSink: a descriptor as a ByteSink. Borrows the descriptor; `cancel`, where given, ends a write that waits for the
// reader of a pipe.
class FdSink : public ByteSink {
 public:
  explicit FdSink(int fd, const CancelToken* cancel = nullptr);
  Result<void> Write(std::span<const uint8_t> bytes) override;

 private:
  Result<void> AwaitRoom() const;

  int fd_;
  bool waits_;  // a pipe, socket or terminal, not a file
  const CancelToken* cancel_;
};

}  // namespace layerstore::sys
