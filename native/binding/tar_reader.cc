#include "binding/tar_reader.h"

#include <utility>
#include <vector>

#include "binding/block_sink.h"
#include "binding/convert.h"
#include "binding/environment.h"
#include "binding/requests.h"
#include "pack/pack.h"
#include "sys/thread_pool.h"

namespace layerstore::binding {

// What the object, the job and its messages share. `request` is fixed before the job starts; sink and cancel are safe
// from any thread; the rest is the JavaScript thread's.
class TarReaderState : public std::enable_shared_from_this<TarReaderState> {
 public:
  explicit TarReaderState(Environment& owner) : environment(owner), sink([this] { TellReady(); }) {}

  void Close() {
    cancel.Cancel();
    sink.Close();
  }
  // The value that read() gives now; nullopt where there is none yet. `failed` tells that it is an error record.
  std::optional<Napi::Value> Take(Napi::Env env, bool& failed);
  void SettleRead(Napi::Env env);
  void Ended(Napi::Env env);

  Environment& environment;
  TarRequest request;
  BlockSink sink;
  CancelToken cancel;
  bool ended = false;
  napi_deferred pending_read = nullptr;
  std::vector<napi_deferred> pending_destroys;

 private:
  void TellReady();
};

namespace {

class ReadyMessage : public Message {
 public:
  explicit ReadyMessage(std::shared_ptr<TarReaderState> state) : state_(std::move(state)) {}
  void Deliver(Napi::Env env) override { state_->SettleRead(env); }

 private:
  std::shared_ptr<TarReaderState> state_;
};

class TarJob : public Job {
 public:
  explicit TarJob(std::shared_ptr<TarReaderState> state) : state_(std::move(state)) {}

  void Run() override {
    const Result<pack::TarSummary> written = state_->request.WriteTo(state_->sink, state_->cancel);
    state_->sink.Finish(written.ok() ? std::nullopt : std::optional<Error>(written.error()));
  }
  void Refuse(Error error) override { state_->sink.Finish(std::move(error)); }
  void Cancel() override { state_->Close(); }
  [[nodiscard]] sys::TaskClass task_class() const override { return sys::TaskClass::kStreamBound; }
  [[nodiscard]] bool Holds() const override { return false; }
  void Deliver(Napi::Env env) override { state_->Ended(env); }

 private:
  std::shared_ptr<TarReaderState> state_;
};

// The collector's word that nobody has the buffer any more.
void DropBlock(napi_env, void*, void* block) { delete static_cast<Block*>(block); }

Napi::Value MakeBuffer(Napi::Env env, FilledBlock filled) {
  uint8_t* const bytes = filled.block.memory().data();
  // Little is copied, so that a whole block is not kept for it.
  if (filled.size > BlockPool::kBlockBytes / 2) {
    auto block = std::make_unique<Block>(std::move(filled.block));
    napi_value buffer = nullptr;
    if (napi_create_external_buffer(env, filled.size, bytes, DropBlock, block.get(), &buffer) == napi_ok) {
      (void)block.release();
      return Napi::Value(env, buffer);
    }
    // A runtime without external buffers.
    return Napi::Buffer<uint8_t>::Copy(env, bytes, filled.size);
  }
  return Napi::Buffer<uint8_t>::Copy(env, bytes, filled.size);
}

}  // namespace

void TarReaderState::TellReady() { environment.Post(std::make_unique<ReadyMessage>(shared_from_this())); }

std::optional<Napi::Value> TarReaderState::Take(Napi::Env env, bool& failed) {
  auto taken = sink.Take();
  if (auto* filled = std::get_if<FilledBlock>(&taken)) return MakeBuffer(env, std::move(*filled));
  if (const auto* error = std::get_if<Error>(&taken)) {
    failed = true;
    return ErrorRecord(env, *error);
  }
  if (std::holds_alternative<EndOfBlocks>(taken)) return env.Null();
  return std::nullopt;
}

void TarReaderState::SettleRead(Napi::Env env) {
  if (pending_read == nullptr) return;
  bool failed = false;
  const std::optional<Napi::Value> value = Take(env, failed);
  if (!value) return;
  const napi_deferred deferred = std::exchange(pending_read, nullptr);
  environment.Drop();
  if (failed) {
    napi_reject_deferred(env, deferred, *value);
  } else {
    napi_resolve_deferred(env, deferred, *value);
  }
}

void TarReaderState::Ended(Napi::Env env) {
  ended = true;
  SettleRead(env);
  for (const napi_deferred deferred : std::exchange(pending_destroys, {})) {
    environment.Drop();
    napi_resolve_deferred(env, deferred, env.Undefined());
  }
}

Napi::Function TarReaderObject::Define(Napi::Env env) {
  return DefineClass(env, "TarReader",
                     {
                         InstanceMethod<&TarReaderObject::Read>("read"),
                         InstanceMethod<&TarReaderObject::Destroy>("destroy"),
                     });
}

TarReaderObject::TarReaderObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<TarReaderObject>(info), state_(std::make_shared<TarReaderState>(Environment::Of(info.Env()))) {
  Guard guard(info.Env());
  state_->request = ReadTarRequest(guard, guard.Object(info[0], "request"));
  if (guard.failed()) return;
  state_->environment.Start(std::make_unique<TarJob>(state_));
}

TarReaderObject::~TarReaderObject() {
  if (state_) state_->Close();
}

Napi::Value TarReaderObject::Read(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (state_->pending_read != nullptr) {
    Guard(env).Refuse("read() was called while another read is pending");
    return env.Undefined();
  }
  bool failed = false;
  const std::optional<Napi::Value> value = state_->Take(env, failed);
  if (value && !failed) return *value;
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  if (napi_create_promise(env, &deferred, &promise) != napi_ok) return env.Undefined();
  if (value) {
    napi_reject_deferred(env, deferred, *value);
  } else {
    state_->pending_read = deferred;
    state_->environment.Hold();
  }
  return Napi::Value(env, promise);
}

Napi::Value TarReaderObject::Destroy(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  state_->Close();
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  if (napi_create_promise(env, &deferred, &promise) != napi_ok) return env.Undefined();
  if (state_->ended) {
    napi_resolve_deferred(env, deferred, env.Undefined());
  } else {
    state_->environment.Hold();
    state_->pending_destroys.push_back(deferred);
  }
  return Napi::Value(env, promise);
}

}  // namespace layerstore::binding
