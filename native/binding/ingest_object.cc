#include "binding/ingest_object.h"

#include <utility>

#include "binding/cancel_token.h"
#include "binding/convert.h"
#include "binding/environment.h"
#include "binding/growing_file.h"
#include "binding/push_source.h"
#include "binding/requests.h"
#include "sys/fd_io.h"
#include "sys/thread_pool.h"
#include "unpack/ingest.h"

namespace layerstore::binding {

// What the object, the job and the messages of one registration share. `pending_write` and `started` are the JavaScript
// thread's; `request`, `file` and `growing` are fixed before the job starts; the rest is safe from any thread.
class IngestState : public std::enable_shared_from_this<IngestState> {
 public:
  explicit IngestState(Environment& environment) : environment_(environment), source([this] { TellRoom(); }) {}

  void Cancel() {
    control.cancel.Cancel();
    source.Close();
    growing_file.Close();
  }
  // JavaScript thread.
  void ResolveWrite(Napi::Env env) {
    if (napi_deferred deferred = std::exchange(pending_write, nullptr); deferred != nullptr) {
      napi_resolve_deferred(env, deferred, env.Undefined());
    }
  }

 private:
  void TellRoom();
  Environment& environment_;

 public:
  unpack::IngestRequest request;
  // A file, whole or growing; absent: `source`.
  std::optional<FileRange> file;
  bool growing = false;
  PushSource source;
  GrowingFile growing_file;
  Control control;
  bool started = false;
  napi_deferred pending_write = nullptr;
};

namespace {

class RoomMessage : public Message {
 public:
  explicit RoomMessage(std::shared_ptr<IngestState> state) : state_(std::move(state)) {}
  void Deliver(Napi::Env env) override { state_->ResolveWrite(env); }

 private:
  std::shared_ptr<IngestState> state_;
};

class IngestJob : public Job {
 public:
  IngestJob(napi_deferred deferred, std::shared_ptr<IngestState> state)
      : deferred_(deferred), state_(std::move(state)) {}

  void Run() override { result_.emplace(Work()); }
  void Refuse(Error error) override { result_.emplace(std::move(error)); }
  void Cancel() override { state_->Cancel(); }
  [[nodiscard]] sys::TaskClass task_class() const override {
    return state_->file.has_value() && !state_->growing ? sys::TaskClass::kBlocking : sys::TaskClass::kStreamBound;
  }
  void Deliver(Napi::Env env) override {
    state_->ResolveWrite(env);
    if (result_->ok()) {
      napi_resolve_deferred(env, deferred_, IngestResultRecord(env, result_->value()));
    } else {
      napi_reject_deferred(env, deferred_, ErrorRecord(env, result_->error()));
    }
  }

 private:
  Result<unpack::IngestResult> Work() {
    if (state_->control.cancel.cancelled()) return DataError(Fault::kCancelled, {});
    if (!state_->file)
      return unpack::Ingest(state_->source, state_->request, state_->control.progress, state_->control.cancel);
    if (state_->growing) {
      LS_TRY(state_->growing_file.Open(state_->file->path));
      return unpack::Ingest(state_->growing_file, state_->request, state_->control.progress, state_->control.cancel);
    }
    LS_ASSIGN(const std::unique_ptr<sys::FdSource> source, OpenRange(*state_->file));
    return unpack::Ingest(*source, state_->request, state_->control.progress, state_->control.cancel);
  }

  napi_deferred deferred_;
  std::shared_ptr<IngestState> state_;
  std::optional<Result<unpack::IngestResult>> result_;
};

}  // namespace

void IngestState::TellRoom() { environment_.Post(std::make_unique<RoomMessage>(shared_from_this())); }

Napi::Function IngestObject::Define(Napi::Env env) {
  return DefineClass(env, "Ingest",
                     {
                         InstanceMethod<&IngestObject::Start>("start"),
                         InstanceMethod<&IngestObject::Write>("write"),
                         InstanceMethod<&IngestObject::Grow>("grow"),
                         InstanceMethod<&IngestObject::End>("end"),
                         InstanceMethod<&IngestObject::Fail>("fail"),
                         InstanceMethod<&IngestObject::Cancel>("cancel"),
                         InstanceMethod<&IngestObject::ReadProgress>("progress"),
                     });
}

IngestObject::IngestObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<IngestObject>(info), state_(std::make_shared<IngestState>(Environment::Of(info.Env()))) {
  Guard guard(info.Env());
  const Napi::Object source = guard.Object(info[0], "request");
  state_->request = ReadIngestRequest(guard, source);
  state_->file = ReadFileRange(guard, source);
  state_->growing = guard.Flag(guard.Member(source, "growing"), "growing");
}

IngestObject::~IngestObject() {
  if (state_) state_->Cancel();
}

Napi::Value IngestObject::Start(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  if (std::exchange(state_->started, true)) {
    Guard(env).Refuse("start() was called before");
    return env.Undefined();
  }
  if (napi_create_promise(env, &deferred, &promise) != napi_ok) return env.Undefined();
  Environment::Of(env).Start(std::make_unique<IngestJob>(deferred, state_));
  return Napi::Value(env, promise);
}

Napi::Value IngestObject::Write(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  if (state_->pending_write != nullptr) guard.Refuse("write() was called while another write is pending");
  const std::span<const uint8_t> bytes = guard.Chunk(info[0], "chunk");
  if (guard.failed()) return env.Undefined();
  napi_value promise = nullptr;
  if (state_->source.Push(bytes)) return env.Undefined();
  // The message that tells of room is delivered on this thread, so it cannot come before the promise is kept.
  if (napi_create_promise(env, &state_->pending_write, &promise) != napi_ok) return env.Undefined();
  return Napi::Value(env, promise);
}

void IngestObject::Grow(const Napi::CallbackInfo& info) {
  Guard guard(info.Env());
  const uint64_t readable = guard.Count(info[0], "readable");
  if (!guard.failed()) state_->growing_file.Grow(readable);
}

void IngestObject::End(const Napi::CallbackInfo&) {
  state_->source.End();
  state_->growing_file.End();
}

void IngestObject::Fail(const Napi::CallbackInfo&) {
  state_->source.Fail();
  state_->growing_file.Fail();
}

void IngestObject::Cancel(const Napi::CallbackInfo&) { state_->Cancel(); }

Napi::Value IngestObject::ReadProgress(const Napi::CallbackInfo& info) {
  return ProgressRecord(info.Env(), state_->control.progress);
}

Napi::Value IngestResultRecord(Napi::Env env, const unpack::IngestResult& result) {
  Napi::Object record = Napi::Object::New(env);
  record.Set("diffID", hash::FormatDigest(result.diff_id));
  record.Set("tarSize", Number(env, result.tar_size));
  record.Set("size", Number(env, result.size));
  record.Set("entries", Number(env, result.entries));
  record.Set("compression", CompressionName(result.compression));
  record.Set("blobSize", Number(env, result.blob_size));
  record.Set("blobDigest", result.blob_digest
                               ? Napi::Value(Napi::String::New(env, hash::FormatDigest(*result.blob_digest)))
                               : env.Undefined());
  record.Set("ignoredXattrs", Number(env, result.ignored_xattrs));
  record.Set("ignoredOwners", Number(env, result.ignored_owners));
  return record;
}

}  // namespace layerstore::binding
