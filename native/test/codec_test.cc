// SHA-256, CRC-64, and both codecs in every way a stream can be cut.
#include <openssl/evp.h>
#include <zlib.h>
#ifdef LS_HAVE_ZSTD
#include <zstd.h>
#endif

#include <algorithm>
#include <cstring>

#include "codec/decoder.h"
#include "codec/encoder.h"
#include "hash/crc64.h"
#include "hash/sha256.h"
#include "test/check.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

std::string Noise(size_t size, uint64_t seed) {
  std::string text(size, '\0');
  for (char& byte : text) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<char>((seed >> 60) + ((seed >> 40) % 11 == 0 ? 64 : 0));
  }
  return text;
}

std::string Gzip(const std::string& text, int level = 6) {
  z_stream stream{};
  deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(compressBound(text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

struct Decoded {
  codec::Compression compression = codec::Compression::kNone;
  Result<std::string> text = std::string();
  uint64_t bytes_in = 0;
};

Decoded Decode(const std::string& bytes, size_t source_step = SIZE_MAX, size_t read_step = 65536,
               const codec::DecoderLimits& limits = {}) {
  MemorySource source(bytes, source_step);
  Decoded decoded;
  auto decoder = codec::Decoder::Open(source, limits);
  if (!decoder.ok()) {
    decoded.text = decoder.error();
    return decoded;
  }
  decoded.compression = (*decoder)->compression();
  std::vector<uint8_t> buffer(read_step);
  std::string text;
  while (true) {
    auto count = (*decoder)->Read(buffer);
    if (!count.ok()) {
      decoded.text = count.error();
      return decoded;
    }
    if (*count == 0) break;
    text.append(reinterpret_cast<const char*>(buffer.data()), *count);
  }
  decoded.bytes_in = (*decoder)->bytes_in();
  decoded.text = text;
  return decoded;
}

bool Fails(const Decoded& decoded, Fault fault) { return !decoded.text.ok() && decoded.text.error().fault == fault; }
bool Gives(const Decoded& decoded, codec::Compression compression, const std::string& text) {
  return decoded.text.ok() && *decoded.text == text && decoded.compression == compression;
}

void TestHashes() {
  CHECK_EQ(hash::Crc64Iso(0, Bytes("123456789")), 0xb90956c775a41001U);
  CHECK_EQ(hash::Crc64Iso(hash::Crc64Iso(0, Bytes("1234")), Bytes("56789")), 0xb90956c775a41001U);
  CHECK_EQ(hash::Crc64Iso(0, {}), 0U);
  const std::string noise = Noise(5000, 3);
  for (size_t size = 0; size < 600; size++) {
    const auto bytes = Bytes(noise).subspan(size % 7, size);
    CHECK_EQ(hash::Crc64Iso(0, bytes), hash::Crc64IsoTable(0, bytes));
    CHECK_EQ(hash::Crc64Iso(hash::Crc64Iso(0, bytes.first(size / 3)), bytes.subspan(size / 3)),
             hash::Crc64IsoTable(0, bytes));
  }
  hash::Sha256 sha;
  sha.Update(Bytes("ab"));
  sha.Update(Bytes("c"));
  CHECK_EQ(hash::FormatDigest(sha.Finish()), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

void TestPlain() {
  for (const size_t size : {0, 1, 2, 3, 4, 511, 512, 513, 100000}) {
    const std::string text = Noise(size, size);
    for (const size_t step : {size_t{1}, size_t{7}, SIZE_MAX}) {
      const Decoded decoded = Decode(text, step, 333);
      CHECK(Gives(decoded, codec::Compression::kNone, text));
      CHECK_EQ(decoded.bytes_in, size);
    }
  }
}

void TestGzip() {
  const std::string one = Noise(70000, 1);
  const std::string two = Noise(3000, 2);
  const std::string members = Gzip(one) + Gzip("") + Gzip(two, 0);
  const size_t steps[] = {1, 3, 18, 4096, SIZE_MAX};
  for (const size_t step : steps) {
    for (const size_t read : {size_t{1}, size_t{512}, size_t{65536}, size_t{1} << 20}) {
      if (read == 1 && step != SIZE_MAX) continue;
      CHECK(Gives(Decode(members, step, read), codec::Compression::kGzip, one + two));
      CHECK(Gives(Decode(members + std::string(1000, '\0'), step, read), codec::Compression::kGzip, one + two));
    }
  }
  CHECK_EQ(Decode(members).bytes_in, members.size());
  CHECK(Gives(Decode(Gzip("")), codec::Compression::kGzip, ""));
  for (const char* garbage : {"x", "\x1f", "garbage behind", "\x1f\x8b\x08"}) {
    CHECK(Fails(Decode(members + garbage), Fault::kBadCompression));
    CHECK(Fails(Decode(members + garbage, 1), Fault::kBadCompression));
  }
  CHECK(Fails(Decode(members + std::string(100, '\0') + "x"), Fault::kBadCompression));
  CHECK(Fails(Decode(members + std::string(100, '\0') + members), Fault::kBadCompression));
  const std::string small = Gzip(two);
  for (size_t size = 3; size < small.size(); size += size < 40 || size + 40 > small.size() ? 1 : 97) {
    CHECK(Fails(Decode(small.substr(0, size)), Fault::kBadCompression));
    CHECK(Fails(Decode(small.substr(0, size), 1, 100), Fault::kBadCompression));
  }
  // Found by fuzzing: ISA-L counted more input than there was.
  const std::string counts_too_far(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x49\xac\x72\x94\x1c\x25\x47\xc9\x11\x49\x02\x00\x12\x38\x92\x57\x08"
      "\x07\x00\x00",
      31);
  CHECK(Fails(Decode(counts_too_far), Fault::kBadCompression));
  std::string damaged = small;
  damaged[small.size() - 6] ^= 1;  // its checksum
  CHECK(Fails(Decode(damaged), Fault::kBadCompression));
}

void TestGzipWriter() {
  for (const size_t size : {0, 1, 1000, 300000}) {
    const std::string text = Noise(size, size + 9);
    StringSink sink;
    auto writer = codec::GzipWriter::Open(sink);
    CHECK_OK(writer);
    for (size_t at = 0; at < size; at += 7001)
      CHECK_OK((*writer)->Write(Bytes(text).subspan(at, std::min<size_t>(7001, size - at))));
    CHECK_OK((*writer)->Finish());
    CHECK(Gives(Decode(sink.text), codec::Compression::kGzip, text));
    if (size == 300000) CHECK(sink.text.size() < size * 3 / 4);
  }
}

std::string Encoded(codec::Compression form, const std::string& text, size_t step) {
  StringSink sink;
  auto encoder = codec::Encoder::Open(form, sink);
  CHECK_OK(encoder);
  if (!encoder.ok()) return {};
  for (size_t at = 0; at < text.size(); at += step)
    CHECK_OK((*encoder)->Write(Bytes(text).subspan(at, std::min(step, text.size() - at))));
  CHECK_OK((*encoder)->Finish());
  return sink.text;
}

void TestEncoders() {
  StringSink sink;
  CHECK(!codec::Encoder::Open(codec::Compression::kNone, sink).ok());
#ifdef LS_HAVE_ZSTD
  const std::vector<codec::Compression> forms = {codec::Compression::kGzip, codec::Compression::kZstd};
#else
  const std::vector<codec::Compression> forms = {codec::Compression::kGzip};
  CHECK(!codec::Encoder::Open(codec::Compression::kZstd, sink).ok());
#endif
  for (const codec::Compression form : forms) {
    for (const size_t size : {0, 1, 1000, 3000000}) {
      const std::string text = Noise(size, size + 11);
      CHECK(Gives(Decode(Encoded(form, text, 7001)), form, text));
      CHECK(Gives(Decode(Encoded(form, text, SIZE_MAX)), form, text));
      if (size == 3000000) CHECK(Encoded(form, text, 100000).size() < size * 3 / 4);
    }
  }
}

#ifdef LS_HAVE_ZSTD
std::string Zstd(const std::string& text, int window_log = 0) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  if (window_log > 0) {
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  }
  std::string out(ZSTD_compressBound(text.size()) + 64, '\0');
  ZSTD_inBuffer in{text.data(), text.size(), 0};
  ZSTD_outBuffer buffer{out.data(), out.size(), 0};
  // In two steps, so that the frame cannot know its content's size and must name its window.
  ZSTD_inBuffer half{text.data(), text.size() / 2, 0};
  ZSTD_compressStream2(context, &buffer, &half, ZSTD_e_flush);
  in.pos = half.pos;
  ZSTD_compressStream2(context, &buffer, &in, ZSTD_e_end);
  ZSTD_freeCCtx(context);
  out.resize(buffer.pos);
  return out;
}

void TestZstd() {
  const std::string one = Noise(200000, 4);
  const std::string two = Noise(900, 5);
  const std::string skippable("\x57\x2A\x4D\x18\x05\x00\x00\x00hello", 13);
  const std::string frames = skippable + Zstd(one) + skippable + Zstd("") + Zstd(two) + skippable;
  for (const size_t step : {size_t{1}, size_t{13}, size_t{4096}, SIZE_MAX}) {
    for (const size_t read : {size_t{100}, size_t{65536}, size_t{1} << 20}) {
      CHECK(Gives(Decode(frames, step, read), codec::Compression::kZstd, one + two));
    }
  }
  CHECK(Gives(Decode(skippable), codec::Compression::kZstd, ""));
  CHECK_EQ(Decode(frames).bytes_in, frames.size());
  const std::string small = Zstd(two);
  for (size_t size = 4; size < small.size(); size += 3) {
    CHECK(Fails(Decode(small.substr(0, size)), Fault::kBadCompression));
    CHECK(Fails(Decode(small.substr(0, size), 1, 50), Fault::kBadCompression));
  }
  CHECK(Fails(Decode(skippable.substr(0, 10)), Fault::kBadCompression));
  CHECK(Fails(Decode(small + "garbage"), Fault::kBadCompression));
  const std::string wide = Zstd(one, 22);
  CHECK(Gives(Decode(wide, SIZE_MAX, 65536, {uint64_t{1} << 22}), codec::Compression::kZstd, one));
  const Decoded limited = Decode(wide, SIZE_MAX, 65536, {uint64_t{1} << 21});
  CHECK(Fails(limited, Fault::kLimit));
  CHECK(!limited.text.ok() && limited.text.error().detail == "maxWindow");
}
#else
void TestZstd() { CHECK(Fails(Decode(std::string("\x28\xB5\x2F\xFD\x00\x00", 6)), Fault::kNotSupported)); }
#endif

}  // namespace

int main() {
  TestHashes();
  TestPlain();
  TestGzip();
  TestGzipWriter();
  TestEncoders();
  TestZstd();
  return Finish();
}
