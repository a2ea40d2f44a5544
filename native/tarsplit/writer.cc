#include "tarsplit/writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "codec/encoder.h"
#include "sys/open.h"
#include "tarsplit/packer.h"

namespace layerstore::tarsplit {
namespace {

// How a record waits in a batch; its bytes follow.
struct Waiting {
  uint8_t file;
  uint8_t has_crc;
  uint32_t bytes;
  uint64_t size;
  uint64_t crc;
};

class FileSink final : public ByteSink {
 public:
  FileSink(int fd, const std::string& path) : fd_(fd), path_(path) {}
  Result<void> Write(std::span<const uint8_t> bytes) override {
    while (!bytes.empty()) {
      const ssize_t count = write(fd_, bytes.data(), bytes.size());
      if (count < 0) {
        if (errno == EINTR) continue;
        return SysError("write", path_);
      }
      bytes = bytes.subspan(static_cast<size_t>(count));
    }
    return {};
  }

 private:
  int fd_;
  const std::string& path_;
};

}  // namespace

Result<std::unique_ptr<Writer>> Writer::Open(const std::string& path) {
  std::unique_ptr<Writer> writer(new Writer(path));
  auto file = sys::OpenPath(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
  if (!file.ok()) {
    writer->keep_ = true;  // not ours
    return file.error();
  }
  writer->file_ = std::move(*file);
  if (fchmod(writer->file_.get(), 0600) != 0) return SysError("fchmod", path);
  LS_ASSIGN(writer->thread_, sys::Thread::Start([self = writer.get()] { self->Run(); }, {.name = "ls-record"}));
  return writer;
}

Writer::~Writer() {
  {
    const sys::MutexLock lock(mutex_);
    aborted_ = true;
    changed_.NotifyAll();
  }
  thread_.Join();
  if (!keep_) (void)unlink(path_.c_str());
}

Result<void> Writer::AddSegment(std::string_view bytes) {
  do {
    const std::string_view piece = bytes.substr(0, Packer::kMaxSegment);
    const Waiting waiting{0, 0, static_cast<uint32_t>(piece.size()), 0, 0};
    batch_.append(reinterpret_cast<const char*>(&waiting), sizeof waiting);
    batch_ += piece;
    bytes.remove_prefix(piece.size());
    if (batch_.size() >= kBatchBytes) LS_TRY(Flush());
  } while (!bytes.empty());
  return {};
}

Result<void> Writer::AddFile(std::string_view name, uint64_t size, std::optional<uint64_t> crc) {
  const Waiting waiting{1, crc.has_value() ? uint8_t{1} : uint8_t{0}, static_cast<uint32_t>(name.size()), size,
                        crc.value_or(0)};
  batch_.append(reinterpret_cast<const char*>(&waiting), sizeof waiting);
  batch_ += name;
  return batch_.size() >= kBatchBytes ? Flush() : Result<void>();
}

Result<void> Writer::Flush() {
  sys::MutexLock lock(mutex_);
  while (batches_.size() >= kBatches && !error_.has_value()) changed_.Wait(lock);
  if (error_.has_value()) return *error_;
  batches_.push_back(std::exchange(batch_, {}));
  changed_.NotifyAll();
  return {};
}

Result<void> Writer::Close() {
  LS_TRY(Flush());
  {
    const sys::MutexLock lock(mutex_);
    ended_ = true;
    changed_.NotifyAll();
  }
  thread_.Join();
  {
    const sys::MutexLock lock(mutex_);
    if (error_.has_value()) return *error_;
  }
  file_.reset();
  keep_ = true;
  return {};
}

// Nothing: the end, or the caller gave up.
std::optional<std::string> Writer::NextBatch() {
  sys::MutexLock lock(mutex_);
  while (batches_.empty() && !ended_ && !aborted_) changed_.Wait(lock);
  if (aborted_ || batches_.empty()) return std::nullopt;
  std::string batch = std::move(batches_.front());
  batches_.pop_front();
  changed_.NotifyAll();
  return batch;
}

void Writer::Run() {
  auto done = Encode();
  if (done.ok()) return;
  const sys::MutexLock lock(mutex_);
  error_ = done.error();
  changed_.NotifyAll();
}

Result<void> Writer::Encode() {
  FileSink sink(file_.get(), path_);
  LS_ASSIGN(const std::unique_ptr<codec::GzipWriter> gzip, codec::GzipWriter::Open(sink));
  Packer packer(*gzip);
  while (const std::optional<std::string> batch = NextBatch()) {
    for (size_t at = 0; at < batch->size();) {
      Waiting waiting;
      std::memcpy(&waiting, batch->data() + at, sizeof waiting);
      const std::string_view bytes = std::string_view(*batch).substr(at + sizeof waiting, waiting.bytes);
      at += sizeof waiting + waiting.bytes;
      if (waiting.file != 0) {
        LS_TRY(packer.AddFile(bytes, waiting.size, waiting.has_crc != 0 ? std::optional(waiting.crc) : std::nullopt));
      } else {
        LS_TRY(packer.AddSegment({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}));
      }
    }
  }
  return gzip->Finish();
}

}  // namespace layerstore::tarsplit
