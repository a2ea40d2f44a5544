#include <algorithm>
#include <vector>

#include "codec/encoder.h"

#ifdef LS_HAVE_ISAL
#include <isa-l/igzip_lib.h>
#else
#include <zlib.h>
#endif

namespace layerstore::codec {
namespace {

constexpr size_t kOutBytes = size_t{64} << 10;
constexpr size_t kMaxStep = size_t{1} << 30;

#ifdef LS_HAVE_ISAL

class LibraryWriter final : public GzipWriter {
 public:
  // The effort is 0 to 3 there, and 3 gives about what zlib's 4 gives, at ten times its speed.
  LibraryWriter(ByteSink& out, GzipEffort effort)
      : out_(out),
        stream_(std::make_unique<isal_zstream>()),
        effort_(effort == GzipEffort::kSmall ? 3 : 1),
        level_(effort == GzipEffort::kSmall ? ISAL_DEF_LVL3_DEFAULT : ISAL_DEF_LVL1_DEFAULT),
        buffer_(kOutBytes) {}

  Result<void> Start() {
    isal_deflate_init(stream_.get());
    stream_->level = effort_;
    stream_->level_buf = level_.data();
    stream_->level_buf_size = static_cast<uint32_t>(level_.size());
    stream_->gzip_flag = IGZIP_GZIP;
    stream_->flush = NO_FLUSH;
    return {};
  }

  Result<void> Write(std::span<const uint8_t> bytes) override {
    while (!bytes.empty()) {
      const size_t count = std::min(bytes.size(), kMaxStep);
      LS_TRY(Run(bytes.first(count)));
      bytes = bytes.subspan(count);
    }
    return {};
  }

  Result<void> Finish() override {
    stream_->end_of_stream = 1;
    return Run({});
  }

 private:
  Result<void> Run(std::span<const uint8_t> bytes) {
    stream_->next_in = const_cast<uint8_t*>(bytes.data());
    stream_->avail_in = static_cast<uint32_t>(bytes.size());
    do {
      stream_->next_out = buffer_.data();
      stream_->avail_out = static_cast<uint32_t>(buffer_.size());
      if (isal_deflate(stream_.get()) != COMP_OK) return DataError(Fault::kInvalid, "isal_deflate");
      const size_t made = buffer_.size() - stream_->avail_out;
      if (made > 0) LS_TRY(out_.Write(std::span(buffer_).first(made)));
    } while (stream_->avail_out == 0 || stream_->avail_in > 0);
    return {};
  }

  ByteSink& out_;
  std::unique_ptr<isal_zstream> stream_;
  uint32_t effort_;
  std::vector<uint8_t> level_;
  std::vector<uint8_t> buffer_;
};

#else

class LibraryWriter final : public GzipWriter {
 public:
  LibraryWriter(ByteSink& out, GzipEffort effort)
      : out_(out), level_(effort == GzipEffort::kSmall ? 6 : 1), buffer_(kOutBytes) {}
  ~LibraryWriter() override { deflateEnd(&stream_); }

  Result<void> Start() {
    if (deflateInit2(&stream_, level_, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK) return {};
    errno = ENOMEM;
    return SysError("deflateInit2");
  }

  Result<void> Write(std::span<const uint8_t> bytes) override {
    while (!bytes.empty()) {
      const size_t count = std::min(bytes.size(), kMaxStep);
      LS_TRY(Run(bytes.first(count), Z_NO_FLUSH));
      bytes = bytes.subspan(count);
    }
    return {};
  }

  Result<void> Finish() override { return Run({}, Z_FINISH); }

 private:
  Result<void> Run(std::span<const uint8_t> bytes, int flush) {
    stream_.next_in = const_cast<uint8_t*>(bytes.data());
    stream_.avail_in = static_cast<uInt>(bytes.size());
    do {
      stream_.next_out = buffer_.data();
      stream_.avail_out = static_cast<uInt>(buffer_.size());
      const int code = deflate(&stream_, flush);
      if (code == Z_STREAM_ERROR) return DataError(Fault::kInvalid, "deflate");
      const size_t made = buffer_.size() - stream_.avail_out;
      if (made > 0) LS_TRY(out_.Write(std::span(buffer_).first(made)));
    } while (stream_.avail_out == 0 || stream_.avail_in > 0);
    return {};
  }

  ByteSink& out_;
  int level_;
  z_stream stream_{};
  std::vector<uint8_t> buffer_;
};

#endif

}  // namespace

Result<std::unique_ptr<GzipWriter>> GzipWriter::Open(ByteSink& out, GzipEffort effort) {
  auto writer = std::make_unique<LibraryWriter>(out, effort);
  LS_TRY(writer->Start());
  return std::unique_ptr<GzipWriter>(std::move(writer));
}

}  // namespace layerstore::codec
