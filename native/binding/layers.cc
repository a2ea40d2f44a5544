#include "binding/layers.h"

#include <utility>

#include "binding/convert.h"
#include "binding/environment.h"
#include "binding/ingest_object.h"
#include "binding/requests.h"
#include "layer/tree.h"
#include "sys/files.h"

namespace layerstore::binding {
namespace {

using Token = std::shared_ptr<Control>;

const char* KindName(ChangeKind kind) {
  switch (kind) {
    case ChangeKind::kAdd:
      return "add";
    case ChangeKind::kDelete:
      return "delete";
    case ChangeKind::kModify:
      break;
  }
  return "modify";
}

Napi::Value ChangeList(Napi::Env env, std::vector<ChangeRecord>& changes) {
  Napi::Array list = Napi::Array::New(env, changes.size());
  for (uint32_t i = 0; i < changes.size(); ++i) {
    // Thousands of changes would otherwise keep thousands of handles.
    const Napi::HandleScope scope(env);
    const ChangeRecord& change = changes[i];
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

Napi::Value ProblemList(Napi::Env env, std::vector<TreeProblem>& problems) {
  Napi::Array list = Napi::Array::New(env, problems.size());
  for (uint32_t i = 0; i < problems.size(); ++i) {
    const Napi::HandleScope scope(env);
    const TreeProblem& problem = problems[i];
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

}  // namespace

Napi::Value ExportTarCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  TarRequest request = ReadTarRequest(guard, guard.Object(info[0], "request"));
  const int fd = guard.Descriptor(info[1], "fd");
  Token token = guard.Token(info[2], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<TarSummary>(
      token,
      [request = std::move(request), fd, token]() -> Result<TarSummary> {
        FdSink sink(fd, &token->cancel);
        return request.WriteTo(sink, token->cancel);
      },
      [](Napi::Env at, TarSummary& summary) -> Napi::Value {
        Napi::Object record = Napi::Object::New(at);
        record.Set("bytes", Number(at, summary.bytes));
        record.Set("diffID", FormatDigest(summary.diff_id));
        return record;
      });
}

Napi::Value HashFileCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string path = guard.Text(info[0], "path");
  DecoderLimits limits;
  limits.max_window = guard.Count(info[1], "maxWindow");
  Token token = guard.Token(info[2], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<HashResult>(
      token,
      [path = std::move(path), limits, token]() -> Result<HashResult> {
        LS_ASSIGN(const std::unique_ptr<FdSource> source, FdSource::Open(path));
        return HashSource(*source, limits, token->cancel);
      },
      [](Napi::Env at, HashResult& result) -> Napi::Value {
        Napi::Object record = Napi::Object::New(at);
        record.Set("digest", FormatDigest(result.digest));
        record.Set("diffID", FormatDigest(result.diff_id));
        record.Set("size", Number(at, result.size));
        record.Set("tarSize", Number(at, result.tar_size));
        record.Set("compression", CompressionName(result.compression));
        return record;
      });
}

Napi::Value ChangesCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  DiffRequest request = ReadDiffRequest(guard, guard.Object(info[0], "request"));
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<std::vector<ChangeRecord>>(
      token, [request = std::move(request), token] { return Changes(request, token->cancel); }, ChangeList);
}

Napi::Value DiffSizeCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  DiffRequest request = ReadDiffRequest(guard, guard.Object(info[0], "request"));
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<uint64_t>(
      token, [request = std::move(request), token] { return DiffSize(request, token->cancel); },
      [](Napi::Env at, uint64_t& size) -> Napi::Value { return Number(at, size); });
}

Napi::Value SealCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  const Napi::Object source = guard.Object(info[0], "request");
  SealRequest request;
  request.diff = ReadDiffRequest(guard, source);
  request.directory = guard.Text(guard.Member(source, "directory"), "directory");
  request.consume = guard.Flag(guard.Member(source, "consume"), "consume");
  request.tar_split_path = guard.Text(guard.Member(source, "tarSplit"), "tarSplit");
  request.dropped_path = guard.OptionalText(guard.Member(source, "dropped"), "dropped");
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<IngestResult>(
      token, [request = std::move(request), token] { return Seal(request, token->progress, token->cancel); },
      [](Napi::Env at, IngestResult& result) { return IngestResultRecord(at, result); });
}

Napi::Value UsageCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string directory = guard.Text(info[0], "directory");
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<TreeUsage>(
      token, [directory = std::move(directory), token] { return Usage(directory, token->cancel); },
      [](Napi::Env at, TreeUsage& usage) -> Napi::Value {
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
    return CopyTree(source, target, token->cancel);
  });
}

Napi::Value RemoveTreeCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string path = guard.Text(info[0], "path");
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).AsyncVoid(token,
                                        [path = std::move(path), token] { return RemoveTree(path, token->cancel); });
}

Napi::Value VerifyTreeCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  const Napi::Object source = guard.Object(info[0], "request");
  VerifyRequest request;
  request.tar_split_path = guard.Text(guard.Member(source, "tarSplit"), "tarSplit");
  request.directory = guard.Text(guard.Member(source, "directory"), "directory");
  request.whiteouts = ReadWhiteouts(guard, guard.Member(source, "whiteouts"));
  request.diff_id = guard.Digest(guard.Member(source, "diffID"), "diffID");
  request.bytes_per_second = guard.Count(guard.Member(source, "bytesPerSecond"), "bytesPerSecond");
  Token token = guard.Token(info[1], "token");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<std::vector<TreeProblem>>(
      token, [request = std::move(request), token] { return VerifyTree(request, token->cancel); }, ProblemList);
}

}  // namespace layerstore::binding
