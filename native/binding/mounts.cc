#include "binding/mounts.h"

#include <functional>
#include <memory>
#include <utility>

#include "binding/convert.h"
#include "binding/environment.h"
#include "mount/mount_table.h"
#include "mount/target.h"
#include "sys/thread_pool.h"

namespace layerstore::binding {
namespace {

constexpr std::pair<const char*, mount::MountTier> kTiers[] = {{"auto", mount::MountTier::kAuto},
                                                               {"fd", mount::MountTier::kFd},
                                                               {"lowerdir+", mount::MountTier::kLowerdirPlus},
                                                               {"classic", mount::MountTier::kClassic}};

// Threads keep a share of it while they work with it, so that JavaScript may drop it at any time.
class DeferredTeardownObject : public Napi::ObjectWrap<DeferredTeardownObject> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "DeferredTeardown", {InstanceMethod<&DeferredTeardownObject::End>("end")});
  }
  static constexpr napi_type_tag kTag{0x6c61796572646566, 0x65727265642d656e};
  explicit DeferredTeardownObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DeferredTeardownObject>(info) {
    info.This().As<Napi::Object>().TypeTag(&kTag);
  }

  [[nodiscard]] std::shared_ptr<mount::DeferredTeardown> share() const { return teardown_; }

 private:
  Napi::Value End(const Napi::CallbackInfo& info) {
    return Environment::Of(info.Env()).AsyncVoid(nullptr, [teardown = teardown_]() -> Result<void> {
      teardown->End();
      return {};
    });
  }

  std::shared_ptr<mount::DeferredTeardown> teardown_ = std::make_shared<mount::DeferredTeardown>();
};

const char* OutcomeName(mount::UnmountOutcome outcome) {
  switch (outcome) {
    case mount::UnmountOutcome::kForeign:
      return "foreign";
    case mount::UnmountOutcome::kTargetLeft:
      return "target-left";
    case mount::UnmountOutcome::kRemoved:
      break;
  }
  return "removed";
}

// An unmount that found the target busy tells who holds it.
class UnmountJob : public Job {
 public:
  using Work = std::function<Result<mount::UnmountOutcome>(const std::string& target)>;
  UnmountJob(napi_deferred deferred, std::string target, sys::TaskClass task_class, Work work)
      : deferred_(deferred), target_(std::move(target)), task_class_(task_class), work_(std::move(work)) {}

  void Run() override {
    result_ = work_(target_);
    if (!result_ && result_.error().err == EBUSY) holders_ = mount::FindHolders(target_);
  }
  [[nodiscard]] sys::TaskClass task_class() const override { return task_class_; }
  void Refuse(Error error) override { result_ = std::move(error); }
  void Cancel() override {}
  void Deliver(Napi::Env env) override {
    if (result_.ok()) {
      napi_resolve_deferred(env, deferred_, Napi::String::New(env, OutcomeName(*result_)));
      return;
    }
    Napi::Object record = ErrorRecord(env, result_.error());
    if (result_.error().err == EBUSY) {
      Napi::Array holders = Napi::Array::New(env, holders_.size());
      for (uint32_t i = 0; i < holders_.size(); ++i) {
        Napi::Object holder = Napi::Object::New(env);
        holder.Set("pid", holders_[i].pid);
        holder.Set("command", holders_[i].command);
        holders.Set(i, holder);
      }
      record.Set("holders", holders);
    }
    napi_reject_deferred(env, deferred_, record);
  }

 private:
  napi_deferred deferred_;
  std::string target_;
  sys::TaskClass task_class_;
  Work work_;
  Result<mount::UnmountOutcome> result_ = mount::UnmountOutcome::kForeign;
  std::vector<mount::Holder> holders_;
};

mount::OverlayMount ReadOverlayMount(Guard& guard, const Napi::Object& source) {
  mount::OverlayMount mount;
  mount.upper = guard.OptionalText(guard.Member(source, "upper"), "upper");
  mount.work = guard.OptionalText(guard.Member(source, "work"), "work");
  mount.lowers = guard.TextList(guard.Member(source, "lowers"), "lowers");
  mount.target = guard.Text(guard.Member(source, "target"), "target");
  mount.options = guard.TextList(guard.Member(source, "options"), "options");
  mount.tier = Named(guard, kTiers, guard.Text(guard.Member(source, "tier"), "tier"), "tier");
  return mount;
}

Napi::Value StartUnmount(Napi::Env env, std::string target, sys::TaskClass task_class, UnmountJob::Work work) {
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  if (napi_create_promise(env, &deferred, &promise) != napi_ok) return env.Undefined();
  Environment::Of(env).Start(std::make_unique<UnmountJob>(deferred, std::move(target), task_class, std::move(work)));
  return Napi::Value(env, promise);
}

}  // namespace

Napi::Function DefineDeferredTeardown(Napi::Env env) { return DeferredTeardownObject::Define(env); }

const char* TierName(mount::MountTier tier) {
  for (const auto& [name, value] : kTiers) {
    if (value == tier) return name;
  }
  return "auto";
}

Napi::Value MountOnNewTargetCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  mount::OverlayMount mount = ReadOverlayMount(guard, guard.Object(info[0], "mount"));
  const uint32_t mode = guard.Word(info[1], "mode");
  if (guard.failed()) return env.Undefined();
  // Without a token, as below.
  return Environment::Of(env).Async<mount::AttachedMount>(
      nullptr, sys::TaskClass::kShort,
      [mount = std::move(mount), mode] { return mount::MountOnNewTarget(mount, mode); },
      [](Napi::Env at, mount::AttachedMount& attached) -> Napi::Value {
        Napi::Object record = Napi::Object::New(at);
        record.Set("tier", TierName(attached.tier));
        record.Set("device", Number(at, attached.device));
        return record;
      });
}

Napi::Value UnmountAndRemoveCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string target = guard.Text(info[0], "target");
  const uint64_t device = guard.Count(info[1], "device");
  // Without one it waits for the sync that ends the file system.
  std::shared_ptr<mount::DeferredTeardown> teardown;
  if (!info[2].IsUndefined()) {
    const auto* const object = guard.Instance<DeferredTeardownObject>(info[2], "teardown", "a DeferredTeardown");
    if (object != nullptr) teardown = object->share();
  }
  if (guard.failed()) return env.Undefined();
  return StartUnmount(env, std::move(target), teardown ? sys::TaskClass::kShort : sys::TaskClass::kBlocking,
                      [device, teardown = std::move(teardown)](const std::string& path) {
                        return mount::UnmountAndRemove(path, device, teardown.get());
                      });
}

Napi::Value MountOverlayCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  mount::OverlayMount mount = ReadOverlayMount(guard, guard.Object(info[0], "mount"));
  if (guard.failed()) return env.Undefined();
  // Without a token: a mount that succeeded is never reported as cancelled.
  return Environment::Of(env).Async<mount::MountTier>(
      nullptr, [mount = std::move(mount)] { return mount::MountOverlay(mount); },
      [](Napi::Env at, mount::MountTier& tier) -> Napi::Value { return Napi::String::New(at, TierName(tier)); });
}

Napi::Value UnmountCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string target = guard.Text(info[0], "target");
  const bool detach = guard.Flag(info[1], "detach");
  if (guard.failed()) return env.Undefined();
  return StartUnmount(env, std::move(target), sys::TaskClass::kBlocking,
                      [detach](const std::string& path) -> Result<mount::UnmountOutcome> {
                        LS_TRY(mount::Unmount(path, detach));
                        return mount::UnmountOutcome::kRemoved;
                      });
}

Napi::Value MountsCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string directory = guard.Text(info[0], "directory");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<std::vector<mount::MountInfo>>(
      nullptr, [directory = std::move(directory)] { return mount::ReadMounts(directory); },
      [](Napi::Env at, std::vector<mount::MountInfo>& mounts) -> Napi::Value {
        Napi::Array list = Napi::Array::New(at, mounts.size());
        for (uint32_t i = 0; i < mounts.size(); ++i) {
          const mount::MountInfo& mount = mounts[i];
          Napi::Object entry = Napi::Object::New(at);
          entry.Set("id", Number(at, mount.id));
          entry.Set("parent", Number(at, mount.parent));
          entry.Set("fsType", mount.fs_type);
          entry.Set("source", mount.source);
          entry.Set("target", mount.target);
          entry.Set("root", mount.root);
          entry.Set("options", mount.options);
          list.Set(i, entry);
        }
        return list;
      });
}

}  // namespace layerstore::binding
