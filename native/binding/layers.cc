#include "binding/layers.h"

#include <utility>

#include "binding/convert.h"
#include "binding/environment.h"
#include "binding/ingest_object.h"
#include "binding/requests.h"
#include "codec/decoder.h"
#include "pack/pack.h"
#include "sys/fd_io.h"
#include "tree/tree.h"
#include "tree/verify.h"
#include "unpack/ingest.h"

namespace layerstore::binding {
namespace {

using Token = std::shared_ptr<Control>;

const char* KindName(tree::ChangeKind kind) {
  switch (kind) {
    case tree::ChangeKind::kAdd:
      return "add";
    case tree::ChangeKind::kDelete:
      return "delete";
    case tree::ChangeKind::kModify:
      break;
  }
  return "modify";
}

Napi::Value ChangeList(Napi::Env env, std::vector<tree::ChangeRecord>& changes) {
  Napi::Array list = Napi::Array::New(env, changes.size());
  for (uint32_t i = 0; i < changes.size(); ++i) {
    // Thousands of changes would otherwise keep thousands of handles.
    const Napi::HandleScope scope(env);
    const tree::ChangeRecord& change = changes[i];
    Napi::Object record = Napi::Object::New(env);
    record.Set("path", change.path);
    record.Set("kind", KindName(change.kind));
    if (!IsUtf8(change.path)) {
      record.Set("rawPath", Napi::Buffer<char>::Copy(env, change.path.data(), change.path.size()));
    }
    list.Set(i, record);
  }
  return list;
}

Napi::Value ProblemList(Napi::Env env, std::vector<tree::TreeProblem>& problems) {
  Napi::Array list = Napi::Array::New(env, problems.size());
  for (uint32_t i = 0; i < problems.size(); ++i) {
    const Napi::HandleScope scope(env);
    const tree::TreeProblem& problem = problems[i];
    Napi::Object record = Napi::Object::New(env);
    record.Set("path", problem.path);
    record.Set("what", problem.what);
    record.Set("expected", problem.expected);
    record.Set("found", problem.found);
    record.Set("cosmetic", problem.cosmetic);
    list.Set(i, record);
  }
  return list;
}

codec::Compression ReadCompression(Guard& guard, const Napi::Value& value) {
  const std::string text = guard.Text(value, "compression");
  if (text == "gzip") return codec::Compression::kGzip;
  if (text == "zstd") return codec::Compression::kZstd;
  if (text != "none") guard.Fail("compression", "\"none\", \"gzip\" or \"zstd\"");
  return codec::Compression::kNone;
}

}  // namespace

Napi::Value ExportTarCall(const Napi::CallbackInfo& info) {
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

Napi::Value HashFileCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string path = guard.Text(info[0], "path");
  codec::DecoderLimits limits;
  limits.max_window = guard.Count(info[1], "maxWindow");
  Token token = guard.Token(info[2], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<unpack::HashResult>(
      token,
      [path = std::move(path), limits, token]() -> Result<unpack::HashResult> {
        LS_ASSIGN(const std::unique_ptr<sys::FdSource> source, sys::FdSource::Open(path));
        return unpack::HashSource(*source, limits, token->cancel);
      },
      [](Napi::Env at, unpack::HashResult& result) -> Napi::Value {
        Napi::Object record = Napi::Object::New(at);
        record.Set("digest", hash::FormatDigest(result.digest));
        record.Set("diffID", hash::FormatDigest(result.diff_id));
        record.Set("size", Number(at, result.size));
        record.Set("tarSize", Number(at, result.tar_size));
        record.Set("compression", CompressionName(result.compression));
        return record;
      });
}

Napi::Value ChangesCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  tree::DiffRequest request = ReadDiffRequest(guard, guard.Object(info[0], "request"));
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<std::vector<tree::ChangeRecord>>(
      token, [request = std::move(request), token] { return tree::Changes(request, token->cancel); }, ChangeList);
}

Napi::Value DiffSizeCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  tree::DiffRequest request = ReadDiffRequest(guard, guard.Object(info[0], "request"));
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<uint64_t>(
      token, [request = std::move(request), token] { return tree::DiffSize(request, token->cancel); },
      [](Napi::Env at, uint64_t& size) -> Napi::Value { return Number(at, size); });
}

Napi::Value CommitTreeCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  const Napi::Object source = guard.Object(info[0], "request");
  pack::CommitTreeRequest request;
  request.diff = ReadDiffRequest(guard, source);
  request.directory = guard.Text(guard.Member(source, "directory"), "directory");
  request.consume = guard.Flag(guard.Member(source, "consume"), "consume");
  request.tar_split_path = guard.Text(guard.Member(source, "tarSplit"), "tarSplit");
  request.removed_whiteouts_tar =
      guard.OptionalText(guard.Member(source, "removedWhiteoutsTar"), "removedWhiteoutsTar");
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<pack::CommittedTree>(
      token,
      [request = std::move(request), token] { return pack::CommitTree(request, token->progress, token->cancel); },
      [](Napi::Env at, pack::CommittedTree& tree) {
        // What an ingest of the plain tar would give.
        unpack::IngestResult result;
        result.diff_id = tree.diff_id;
        result.tar_size = result.blob_size = tree.tar_size;
        result.size = tree.size;
        result.entries = tree.entries;
        return IngestResultRecord(at, result);
      });
}

Napi::Value UsageCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string directory = guard.Text(info[0], "directory");
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<tree::TreeUsage>(
      token, [directory = std::move(directory), token] { return tree::Usage(directory, token->cancel); },
      [](Napi::Env at, tree::TreeUsage& usage) -> Napi::Value {
        Napi::Object record = Napi::Object::New(at);
        record.Set("size", Number(at, usage.size));
        record.Set("allocated", Number(at, usage.allocated));
        record.Set("inodes", Number(at, usage.inodes));
        return record;
      });
}

Napi::Value CopyTreeCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string source = guard.Text(info[0], "source");
  std::string target = guard.Text(info[1], "target");
  Token token = guard.Token(info[2], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).AsyncVoid(token, [source = std::move(source), target = std::move(target), token] {
    return tree::CopyTree(source, target, token->cancel);
  });
}

Napi::Value RemoveTreeCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string path = guard.Text(info[0], "path");
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).AsyncVoid(
      token, [path = std::move(path), token] { return tree::RemoveTree(path, token->cancel); });
}

Napi::Value VerifyTreeCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  const Napi::Object source = guard.Object(info[0], "request");
  tree::VerifyRequest request;
  request.tar_split_path = guard.Text(guard.Member(source, "tarSplit"), "tarSplit");
  request.directory = guard.Text(guard.Member(source, "directory"), "directory");
  request.whiteouts = ReadWhiteouts(guard, guard.Member(source, "whiteouts"));
  request.privilege = ReadPrivilege(guard, guard.Member(source, "privilege"));
  request.diff_id = guard.Digest(guard.Member(source, "diffID"), "diffID");
  request.bytes_per_second = guard.Count(guard.Member(source, "bytesPerSecond"), "bytesPerSecond");
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<std::vector<tree::TreeProblem>>(
      token, [request = std::move(request), token] { return tree::VerifyTree(request, token->cancel); }, ProblemList);
}

}  // namespace layerstore::binding
