// Environment: what one JavaScript environment (the main thread, or one worker) has of the addon: a thread pool, one
// thread-safe function through which native threads settle promises.
// Everything but Post() belongs to the JavaScript thread. When the environment ends, a clean-up hook cancels the
// running jobs and joins their threads: no native thread outlives the environment it works for.
#pragma once

#include <napi.h>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_set>

#include "binding/convert.h"
#include "sys/control.h"
#include "sys/result.h"
#include "sys/thread_pool.h"

namespace layerstore::binding {

// The link from JavaScript to running work: a request to stop, and progress counters. Shared by both sides; atomics
// only.
struct Control {
  CancelToken cancel;
  Progress progress;
};

class Job;

// Message: sent by a native thread to the JavaScript thread of one environment.
// Made on any thread; Deliver() runs on the JavaScript thread, or never where the environment ends first. The
// destructor may run on either, so a Message owns nothing that belongs to JavaScript but bare handles that die with it.
class Message {
 public:
  Message() = default;
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
  virtual ~Message() = default;
  virtual void Deliver(Napi::Env env) = 0;
  // The Job whose end this is; null for any other message.
  virtual Job* AsJob() { return nullptr; }
};

// Job: work on a pool thread whose end is delivered to JavaScript.
class Job : public Message {
 public:
  Job* AsJob() final { return this; }
  // Pool thread.
  virtual void Run() = 0;
  // Called on the JavaScript thread instead of Run() if the work could not be started.
  virtual void Refuse(Error error) = 0;
  // JavaScript thread, while Run() may be running: stop soon.
  virtual void Cancel() = 0;
  [[nodiscard]] virtual sys::TaskClass task_class() const { return sys::TaskClass::kBlocking; }
  // Keeps the event loop alive until it is delivered.
  [[nodiscard]] virtual bool Holds() const { return true; }
};

class Environment {
 public:
  static Environment* Create(Napi::Env env);
  static Environment& Of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  void Start(std::unique_ptr<Job> job);
  // Any thread.
  void Post(std::unique_ptr<Message> message);

  // `turn(callback)` calls back in a later turn of the event loop. With it, what many threads finish at once is
  // delivered over several turns, and timers run in between.
  void TurnBy(Napi::Function turn);

  // The event loop stays alive between the two; calls nest.
  void Hold();
  void Drop();

  // A promise for `work`, which runs on a pool thread; `convert` makes its value on the JavaScript thread.
  template <typename T>
  Napi::Value Async(std::shared_ptr<Control> control, sys::TaskClass task_class, std::function<Result<T>()> work,
                    std::function<Napi::Value(Napi::Env, T&)> convert);
  template <typename T>
  Napi::Value Async(std::shared_ptr<Control> control, std::function<Result<T>()> work,
                    std::function<Napi::Value(Napi::Env, T&)> convert) {
    return Async<T>(std::move(control), sys::TaskClass::kBlocking, std::move(work), std::move(convert));
  }
  Napi::Value AsyncVoid(std::shared_ptr<Control> control, std::function<Result<void>()> work) {
    return AsyncVoid(std::move(control), sys::TaskClass::kBlocking, std::move(work));
  }
  Napi::Value AsyncVoid(std::shared_ptr<Control> control, sys::TaskClass task_class,
                        std::function<Result<void>()> work);

  Napi::FunctionReference file_lock;  // its constructor, for lock()

 private:
  explicit Environment(Napi::Env env) : env_(env) {}
  static void CallJs(napi_env env, napi_value, void* context, void* data);
  static void CleanUp(void* self);
  void Arrive(Napi::Env env, std::unique_ptr<Message> message);
  void OnTurn(Napi::Env env);
  void BeginTurn();
  void Deliver(Napi::Env env, std::unique_ptr<Message> message);

  // How long messages are delivered in one turn of the event loop, with what JavaScript does about them.
  static constexpr std::chrono::milliseconds kTurn{4};
  // After that time so many messages are delivered together, before JavaScript runs again.
  static constexpr size_t kTogether = 8;

  Napi::Env env_;
  napi_threadsafe_function function_ = nullptr;
  sys::ThreadPool pool_;
  std::unordered_set<Job*> jobs_;  // started, not delivered
  Napi::FunctionReference turn_;
  Napi::FunctionReference on_turn_;
  std::deque<std::unique_ptr<Message>> waiting_;  // for a later turn, in their order
  std::chrono::steady_clock::time_point turn_began_;
  bool turning_ = false;  // OnTurn() is to come
  size_t holds_ = 0;
  bool closed_ = false;
};

// PromiseJob: a Job that settles one promise.
template <typename T>
class PromiseJob : public Job {
 public:
  PromiseJob(napi_deferred deferred, std::shared_ptr<Control> control, sys::TaskClass task_class,
             std::function<Result<T>()> work, std::function<Napi::Value(Napi::Env, T&)> convert)
      : deferred_(deferred),
        control_(std::move(control)),
        task_class_(task_class),
        work_(std::move(work)),
        convert_(std::move(convert)) {}

  void Run() override {
    // Cancelled while it waited for a thread.
    if (control_ && control_->cancel.cancelled()) {
      result_.emplace(DataError(Fault::kCancelled, {}));
    } else {
      result_.emplace(work_());
    }
    work_ = nullptr;
  }
  [[nodiscard]] sys::TaskClass task_class() const override { return task_class_; }
  void Refuse(Error error) override { result_.emplace(std::move(error)); }
  void Cancel() override {
    if (control_) control_->cancel.Cancel();
  }
  void Deliver(Napi::Env env) override {
    if (result_->ok()) {
      napi_resolve_deferred(env, deferred_, convert_(env, result_->value()));
    } else {
      napi_reject_deferred(env, deferred_, ErrorRecord(env, result_->error()));
    }
  }

 private:
  napi_deferred deferred_;
  std::shared_ptr<Control> control_;
  sys::TaskClass task_class_;
  std::function<Result<T>()> work_;
  std::function<Napi::Value(Napi::Env, T&)> convert_;
  std::optional<Result<T>> result_;
};

template <typename T>
Napi::Value Environment::Async(std::shared_ptr<Control> control, sys::TaskClass task_class,
                               std::function<Result<T>()> work, std::function<Napi::Value(Napi::Env, T&)> convert) {
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  if (napi_create_promise(env_, &deferred, &promise) != napi_ok) return env_.Undefined();
  Start(std::make_unique<PromiseJob<T>>(deferred, std::move(control), task_class, std::move(work), std::move(convert)));
  return Napi::Value(env_, promise);
}

}  // namespace layerstore::binding
