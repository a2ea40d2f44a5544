#include "binding/environment.h"

#include <utility>

#include "sys/thread_pool.h"

namespace layerstore::binding {

Environment* Environment::Create(Napi::Env env) {
  auto* self = new Environment(env);
  env.SetInstanceData(self);
  const Napi::String name = Napi::String::New(env, "layerstore");
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, self, CallJs,
                                      &self->function_) != napi_ok) {
    return nullptr;
  }
  napi_unref_threadsafe_function(env, self->function_);
  // Hooks run last first: this one before the function's own, so that no thread calls a function that is gone.
  if (napi_add_env_cleanup_hook(env, CleanUp, self) != napi_ok) return nullptr;
  return self;
}

Environment::~Environment() = default;

void Environment::CleanUp(void* data) {
  auto* self = static_cast<Environment*>(data);
  self->closed_ = true;
  for (Job* job : self->jobs_) job->Cancel();
  self->pool_.Close();
  // What was posted meanwhile is deleted by CallJs, which is called without an environment, when the function ends.
}

void Environment::CallJs(napi_env env, napi_value, void* context, void* data) {
  std::unique_ptr<Message> message(static_cast<Message*>(data));
  if (env == nullptr) return;
  static_cast<Environment*>(context)->Arrive(env, std::move(message));
}

void Environment::TurnBy(Napi::Function turn) {
  turn_ = Napi::Persistent(turn);
  on_turn_ = Napi::Persistent(Napi::Function::New(turn.Env(), [this](const Napi::CallbackInfo& info) {
    OnTurn(info.Env());
    return info.Env().Undefined();
  }));
}

// A thread-safe function goes on as long as messages come, up to a thousand, and what JavaScript does about one may
// bring the next: the turn would last a quarter of a second.
void Environment::Arrive(Napi::Env env, std::unique_ptr<Message> message) {
  const Napi::HandleScope scope(env);
  if (!turning_ && !turn_.IsEmpty()) BeginTurn();
  const bool over = turning_ && std::chrono::steady_clock::now() - turn_began_ > kTurn;
  if (over || !waiting_.empty()) {
    waiting_.push_back(std::move(message));
  } else {
    Deliver(env, std::move(message));
  }
}

void Environment::BeginTurn() {
  turning_ = true;
  turn_began_ = std::chrono::steady_clock::now();
  turn_.Call({on_turn_.Value()});
}

void Environment::OnTurn(Napi::Env env) {
  turning_ = false;
  if (waiting_.empty()) return;
  BeginTurn();
  for (size_t i = 0; i < kTogether && !waiting_.empty(); ++i) {
    std::unique_ptr<Message> message = std::move(waiting_.front());
    waiting_.pop_front();
    Deliver(env, std::move(message));
  }
}

void Environment::Deliver(Napi::Env env, std::unique_ptr<Message> message) {
  const Napi::HandleScope scope(env);
  if (Job* const job = message->AsJob(); job != nullptr) {
    jobs_.erase(job);
    if (job->Holds()) Drop();
  }
  message->Deliver(env);
}

void Environment::Start(std::unique_ptr<Job> job) {
  Job* const started = job.release();
  jobs_.insert(started);
  if (started->Holds()) Hold();
  const auto post = [this, started] { Post(std::unique_ptr<Message>(started)); };
  if (closed_) {
    started->Refuse(DataError(Fault::kCancelled, {}));
    post();
    return;
  }
  Result<void> submitted = pool_.Submit(
      [started, post] {
        started->Run();
        post();
      },
      started->task_class());
  if (!submitted) {
    started->Refuse(submitted.error());
    post();
  }
}

void Environment::Post(std::unique_ptr<Message> message) {
  if (napi_call_threadsafe_function(function_, message.get(), napi_tsfn_nonblocking) == napi_ok) {
    (void)message.release();
  }
}

void Environment::Hold() {
  if (holds_++ == 0) napi_ref_threadsafe_function(env_, function_);
}

void Environment::Drop() {
  if (--holds_ == 0) napi_unref_threadsafe_function(env_, function_);
}

Napi::Value Environment::AsyncVoid(std::shared_ptr<Control> control, sys::TaskClass task_class,
                                   std::function<Result<void>()> work) {
  return Async<bool>(
      std::move(control), task_class,
      [work = std::move(work)]() -> Result<bool> {
        LS_TRY(work());
        return true;
      },
      [](Napi::Env env, bool&) -> Napi::Value { return env.Undefined(); });
}

}  // namespace layerstore::binding
