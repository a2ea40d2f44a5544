#include "unpack/file_writer.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace layerstore::unpack {

std::atomic<uint64_t> FileWriter::open_{0};

FileWriter::FileWriter(const tree::Creator& creator) : creator_(creator) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) max_open_ = std::min<uint64_t>(kMaxOpen, limit.rlim_cur / kShareOfLimit);
}

FileWriter::~FileWriter() {
  {
    const sys::MutexLock lock(mutex_);
    ended_ = true;
    changed_.NotifyAll();
  }
  thread_.Join();
  open_ -= batch_.files.size();
  for (const Batch& batch : batches_) open_ -= batch.files.size();
}

void FileWriter::Keep(const BlockQueue::Ref& block) {
  if (batch_.blocks.empty() || batch_.blocks.back() != block) batch_.blocks.push_back(block);
}

Result<void> FileWriter::Add(File file) {
  batch_.files.push_back(std::move(file));
  open_++;
  return batch_.files.size() >= kFilesAtOnce ? Flush() : Result<void>();
}

Result<void> FileWriter::Flush() {
  if (batch_.files.empty()) return {};
  if (!thread_.joinable()) {
    LS_ASSIGN(thread_, sys::Thread::Start([this] { Run(); }, {.name = "ls-write"}));
  }
  Batch batch = std::exchange(batch_, {});
  const sys::MutexLock lock(mutex_);
  batches_.push_back(std::move(batch));
  changed_.NotifyAll();
  if (error_.has_value()) return *error_;
  return {};
}

// What the writer has not begun is done here: the caller would only wait, and one file is sooner written than handed
// over, as where every second entry is a hard link.
Result<void> FileWriter::Drain() {
  LS_TRY(WriteAll(std::exchange(batch_, {})));
  sys::MutexLock lock(mutex_);
  while (!batches_.empty() && !error_.has_value()) {
    Batch batch = std::move(batches_.front());
    batches_.pop_front();
    lock.Unlock();
    LS_TRY(WriteAll(std::move(batch)));
    lock.Lock();
  }
  while (busy_) changed_.Wait(lock);
  if (error_.has_value()) return *error_;
  return {};
}

void FileWriter::Run() {
  sys::MutexLock lock(mutex_);
  while (true) {
    while (!ended_ && !error_.has_value() && batches_.empty()) changed_.Wait(lock);
    if (ended_ || error_.has_value()) return;
    Batch batch = std::move(batches_.front());
    batches_.pop_front();
    busy_ = true;
    lock.Unlock();
    auto done = WriteAll(std::move(batch));
    lock.Lock();
    busy_ = false;
    if (!done.ok()) error_ = done.error();
    changed_.NotifyAll();
  }
}

Result<void> FileWriter::WriteAll(Batch batch) {
  Result<void> done;
  for (File& file : batch.files) {
    if (done.ok()) done = Write(file);
    file.fd.reset();
    open_--;
  }
  return done;
}

Result<void> FileWriter::Write(File& file) const {
  for (std::span<const uint8_t> data : file.pieces) {
    while (!data.empty()) {
      const ssize_t count = write(file.fd.get(), data.data(), data.size());
      if (count < 0) {
        if (errno == EINTR) continue;
        return SysError("write", file.path);
      }
      data = data.subspan(static_cast<size_t>(count));
    }
  }
  static const tar::Entry kNoXattrs;
  uint64_t ignored = 0;
  return tree::ApplyToFd(file.fd.get(), kNoXattrs, file.metadata, creator_, file.flags, file.path, ignored);
}

}  // namespace layerstore::unpack
