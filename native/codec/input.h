// CodecInput: the compressed side of a Decoder: a buffer refilled from a ByteSource that counts what it took. Used by
// the one thread that reads the Decoder; owns its buffer, not the source.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "codec/decoder.h"

namespace layerstore::codec {

class CodecInput {
 public:
  explicit CodecInput(ByteSource& source, size_t capacity) : source_(source), buffer_(capacity) {}

  [[nodiscard]] std::span<const uint8_t> available() const { return std::span(buffer_).subspan(begin_, end_ - begin_); }
  void Consume(size_t count) { begin_ += count; }
  [[nodiscard]] uint64_t taken() const { return taken_; }
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] ByteSource& source() { return source_; }

  // Reads once behind what is there. False: the source has ended.
  Result<bool> Fill() {
    if (ended_) return false;
    if (begin_ == end_) begin_ = end_ = 0;
    if (end_ == buffer_.size()) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    LS_ASSIGN(const size_t count, source_.Read(std::span(buffer_).subspan(end_)));
    end_ += count;
    taken_ += count;
    ended_ = count == 0;
    return !ended_;
  }

  // The caller read `count` bytes from source() by itself.
  void Note(size_t count) {
    taken_ += count;
    ended_ = count == 0;
  }
  // Makes room for bulk reading once the first bytes have told the compression.
  void Grow(size_t capacity) {
    if (capacity > buffer_.size()) buffer_.resize(capacity);
  }

 private:
  ByteSource& source_;
  std::vector<uint8_t> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  uint64_t taken_ = 0;
  bool ended_ = false;
};

inline constexpr size_t kCodecInputBytes = size_t{256} << 10;

Result<std::unique_ptr<Decoder>> OpenGzipDecoder(CodecInput input);
Result<std::unique_ptr<Decoder>> OpenZstdDecoder(CodecInput input, const DecoderLimits& limits);

}  // namespace layerstore::codec
