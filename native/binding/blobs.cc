#include "binding/blobs.h"

#include <utility>

#include "binding/convert.h"
#include "binding/environment.h"
#include "binding/requests.h"
#include "pack/pack.h"
#include "sys/fd_io.h"

namespace layerstore::binding {
namespace {

codec::Compression ReadCompression(Guard& guard, const Napi::Value& value) {
  const std::string text = guard.Text(value, "compression");
  if (text == "gzip") return codec::Compression::kGzip;
  if (text == "zstd") return codec::Compression::kZstd;
  if (text != "none") guard.Fail("compression", "\"none\", \"gzip\" or \"zstd\"");
  return codec::Compression::kNone;
}

}  // namespace

Napi::Value ExportBlobCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  const Napi::Object source = guard.Object(info[0], "request");
  TarRequest request = ReadTarRequest(guard, source);
  if (!guard.failed() && !request.assemble) guard.Fail("kind", "\"assemble\"");
  const codec::Compression form = ReadCompression(guard, info[1]);
  const int fd = guard.Descriptor(info[2], "fd");
  std::shared_ptr<Control> token = guard.Token(info[3], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<pack::BlobSummary>(
      token,
      [request = std::move(*request.assemble), form, fd, token]() -> Result<pack::BlobSummary> {
        sys::FdSink sink(fd, &token->cancel);
        return pack::ExportBlob(request, form, sink, token->progress, token->cancel);
      },
      [](Napi::Env at, pack::BlobSummary& summary) -> Napi::Value {
        Napi::Object record = Napi::Object::New(at);
        record.Set("bytes", Number(at, summary.tar.bytes));
        record.Set("diffID", hash::FormatDigest(summary.tar.diff_id));
        record.Set("blobSize", Number(at, summary.bytes));
        record.Set("blobDigest", hash::FormatDigest(summary.digest));
        return record;
      });
}

Napi::Value RecordedSizeCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string path = guard.Text(info[0], "path");
  std::shared_ptr<Control> token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<uint64_t>(
      token, [path = std::move(path), token] { return pack::RecordedSize(path, token->cancel); },
      [](Napi::Env at, uint64_t& size) -> Napi::Value { return Number(at, size); });
}

}  // namespace layerstore::binding
