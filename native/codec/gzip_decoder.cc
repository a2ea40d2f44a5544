// gzip in: members one behind another, zero padding behind the last one. By ISA-L, else by zlib.
#ifdef LS_HAVE_ISAL
#include <isa-l/igzip_lib.h>
#else
#include <zlib.h>
#endif

#include "codec/input.h"

namespace layerstore::codec {
namespace {

enum class Step : uint8_t { kMore, kMemberEnd, kBad };

#ifdef LS_HAVE_ISAL

// One member at a time; Reset() before each.
class MemberInflater {
 public:
  MemberInflater() : state_(std::make_unique<inflate_state>()) { isal_inflate_init(state_.get()); }

  bool Reset() {
    isal_inflate_reset(state_.get());
    state_->crc_flag = ISAL_GZIP;
    return true;
  }

  Step Run(std::span<const uint8_t>& in, std::span<uint8_t>& out) {
    state_->next_in = const_cast<uint8_t*>(in.data());
    state_->avail_in = static_cast<uint32_t>(in.size());
    state_->next_out = out.data();
    state_->avail_out = static_cast<uint32_t>(out.size());
    const int code = isal_inflate(state_.get());
    if (code != ISAL_DECOMP_OK && code != ISAL_END_INPUT) return Step::kBad;
    // ISA-L 2.30 can count one byte more than there was where damaged input ends inside a block (found by fuzzing).
    if (state_->avail_in > in.size() || state_->avail_out > out.size()) return Step::kBad;
    in = in.last(state_->avail_in);
    out = out.last(state_->avail_out);
    return state_->block_state == ISAL_BLOCK_FINISH ? Step::kMemberEnd : Step::kMore;
  }

 private:
  std::unique_ptr<inflate_state> state_;
};

#else

class MemberInflater {
 public:
  MemberInflater() { ready_ = inflateInit2(&stream_, 15 + 16) == Z_OK; }
  ~MemberInflater() { inflateEnd(&stream_); }
  MemberInflater(const MemberInflater&) = delete;
  MemberInflater& operator=(const MemberInflater&) = delete;

  bool Reset() { return ready_ && inflateReset(&stream_) == Z_OK; }

  Step Run(std::span<const uint8_t>& in, std::span<uint8_t>& out) {
    stream_.next_in = const_cast<uint8_t*>(in.data());
    stream_.avail_in = static_cast<uInt>(in.size());
    stream_.next_out = out.data();
    stream_.avail_out = static_cast<uInt>(out.size());
    const int code = inflate(&stream_, Z_NO_FLUSH);
    in = in.last(stream_.avail_in);
    out = out.last(stream_.avail_out);
    if (code == Z_STREAM_END) return Step::kMemberEnd;
    return code == Z_OK || code == Z_BUF_ERROR ? Step::kMore : Step::kBad;
  }

 private:
  z_stream stream_{};
  bool ready_ = false;
};

#endif

class GzipDecoder final : public Decoder {
 public:
  explicit GzipDecoder(CodecInput input) : input_(std::move(input)) {}

  Result<void> Start() {
    if (!inflater_.Reset()) return SysErrorOf(ENOMEM);
    return {};
  }

  Result<size_t> Read(std::span<uint8_t> into) override {
    if (into.size() > kMaxStep) into = into.first(kMaxStep);
    std::span<uint8_t> out = into;
    while (!out.empty() && state_ != State::kEnded) {
      if (input_.available().empty()) {
        // Bytes in hand go first: what is wrong with the rest is the next call's matter.
        if (out.size() < into.size() && state_ == State::kMember) break;
        LS_ASSIGN(const bool more, input_.Fill());
        if (!more) {
          if (state_ != State::kMember) {
            state_ = State::kEnded;
            break;
          }
          const size_t before = out.size();
          if (!Drain(out) || (state_ == State::kMember && out.size() == before)) {
            return Bad("the gzip stream ends inside a member");
          }
          break;
        }
      }
      if (state_ == State::kMember) {
        LS_TRY(Inflate(out));
      } else {
        LS_TRY(BetweenMembers());
      }
    }
    return into.size() - out.size();
  }
  [[nodiscard]] Compression compression() const override { return Compression::kGzip; }
  [[nodiscard]] uint64_t bytes_in() const override { return input_.taken(); }

 private:
  enum class State : uint8_t { kMember, kBetween, kPadding, kEnded };
  static constexpr size_t kMaxStep = size_t{1} << 30;

  static Error SysErrorOf(int err) {
    errno = err;
    return SysError("inflateInit2");
  }
  static Error Bad(const char* what) { return DataError(Fault::kBadCompression, what); }

  Result<void> Inflate(std::span<uint8_t>& out) {
    std::span<const uint8_t> in = input_.available();
    const size_t before = in.size();
    const Step step = inflater_.Run(in, out);
    input_.Consume(before - in.size());
    if (step == Step::kBad) return Bad("the gzip stream is damaged");
    if (step == Step::kMemberEnd) state_ = State::kBetween;
    return {};
  }

  // Output that the inflater still holds although all input is in. False: damaged.
  bool Drain(std::span<uint8_t>& out) {
    std::span<const uint8_t> none;
    const Step step = inflater_.Run(none, out);
    if (step == Step::kMemberEnd) state_ = State::kEnded;
    return step != Step::kBad;
  }

  Result<void> BetweenMembers() {
    const std::span<const uint8_t> in = input_.available();
    if (in[0] == 0) {
      state_ = State::kPadding;
      const auto other = std::find_if(in.begin(), in.end(), [](uint8_t byte) { return byte != 0; });
      if (other != in.end()) return Bad("bytes follow the zero padding of the gzip stream");
      input_.Consume(in.size());
      return {};
    }
    if (state_ == State::kPadding || in[0] != 0x1F) return Bad("garbage follows the last gzip member");
    if (!inflater_.Reset()) return SysErrorOf(ENOMEM);
    state_ = State::kMember;
    return {};
  }

  CodecInput input_;
  MemberInflater inflater_;
  State state_ = State::kMember;
};

}  // namespace

Result<std::unique_ptr<Decoder>> OpenGzipDecoder(CodecInput input) {
  auto decoder = std::make_unique<GzipDecoder>(std::move(input));
  LS_TRY(decoder->Start());
  return std::unique_ptr<Decoder>(std::move(decoder));
}

#ifdef LS_HAVE_ISAL
const char* GzipBackend() { return "isal"; }
#else
const char* GzipBackend() { return "zlib"; }
#endif

}  // namespace layerstore::codec
