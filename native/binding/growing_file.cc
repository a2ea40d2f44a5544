#include "binding/growing_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace layerstore::binding {

Result<void> GrowingFile::Open(const std::string& path) {
  fd_ = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd_.valid()) return SysError("open", path);
  path_ = path;
  return {};
}

void GrowingFile::Grow(uint64_t readable) {
  const sys::MutexLock lock(mutex_);
  readable_ = std::max(readable_, readable);
  changed_.NotifyOne();
}

void GrowingFile::Stop(State state) {
  const sys::MutexLock lock(mutex_);
  // The end stays one; a cancellation comes over everything.
  if (state_ == State::kOpen || state == State::kClosed) state_ = state;
  changed_.NotifyOne();
}

Result<size_t> GrowingFile::Read(std::span<uint8_t> into) {
  size_t wanted = 0;
  {
    sys::MutexLock lock(mutex_);
    while (state_ == State::kOpen && readable_ <= position_) changed_.Wait(lock);
    if (state_ == State::kClosed) return DataError(Fault::kCancelled, {});
    if (state_ == State::kFailed) return DataError(Fault::kSourceError, {});
    wanted = std::min<uint64_t>(into.size(), readable_ - position_);
  }
  if (wanted == 0) return size_t{0};
  for (;;) {
    const ssize_t got = ::pread(fd_.get(), into.data(), wanted, static_cast<off_t>(position_));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SysError("pread", path_);
    if (got == 0) return DataError(Fault::kBadTar, "the file ends before its last byte");
    position_ += static_cast<uint64_t>(got);
    return static_cast<size_t>(got);
  }
}

}  // namespace layerstore::binding
