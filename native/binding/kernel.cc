#include "binding/kernel.h"

#include <charconv>
#include <functional>
#include <string_view>
#include <utility>

#include "binding/convert.h"
#include "binding/environment.h"
#include "codec/decoder.h"
#include "hash/crc64.h"
#include "mount/overlay.h"
#include "mount/probe.h"
#include "sys/batch.h"
#include "sys/files.h"
#include "sys/probe.h"

namespace layerstore::binding {
namespace {

constexpr std::pair<const char*, MountTier> kTiers[] = {{"auto", MountTier::kAuto},
                                                        {"fd", MountTier::kFd},
                                                        {"lowerdir+", MountTier::kLowerdirPlus},
                                                        {"classic", MountTier::kClassic}};

constexpr std::pair<const char*, BatchKind> kBatchKinds[] = {
    {"mkdir", BatchKind::kMkdir},       {"write", BatchKind::kWrite},       {"symlink", BatchKind::kSymlink},
    {"rename", BatchKind::kRename},     {"exchange", BatchKind::kExchange}, {"unlink", BatchKind::kUnlink},
    {"rmdir", BatchKind::kRmdir},       {"chmod", BatchKind::kChmod},       {"chown", BatchKind::kChown},
    {"setxattr", BatchKind::kSetxattr}, {"mknod", BatchKind::kMknod},       {"removexattr", BatchKind::kRemovexattr},
    {"fsync", BatchKind::kFsync}};

template <typename T, size_t N>
T Named(Guard& guard, const std::pair<const char*, T> (&table)[N], const std::string& text, const char* name) {
  for (const auto& [known, value] : table) {
    if (text == known) return value;
  }
  guard.Fail(name, "one of the words of the contract");
  return table[0].second;
}

const char* TierName(MountTier tier) {
  for (const auto& [name, value] : kTiers) {
    if (value == tier) return name;
  }
  return "auto";
}

// The fields of a batch (src/engine/native/batch.ts), one after the other; empty behind the last.
class Fields {
 public:
  Fields(Guard& guard, std::string_view text, std::vector<std::string> blobs)
      : guard_(guard), left_(text), blobs_(std::move(blobs)) {}
  [[nodiscard]] bool more() const { return !left_.empty(); }

  std::string Text() {
    const size_t end = left_.find('\0');
    std::string field(left_.substr(0, end));
    left_.remove_prefix(end == std::string_view::npos ? left_.size() : end + 1);
    return field;
  }
  bool Flag() { return !Text().empty(); }
  uint32_t Number(const char* name) { return OptionalNumber(name).value_or(0); }
  std::optional<uint32_t> OptionalNumber(const char* name) {
    const std::string field = Text();
    if (field.empty()) return std::nullopt;
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
    if (error != std::errc() || end != field.data() + field.size()) guard_.Fail(name, "a whole number of 32 bits");
    return value;
  }
  // The text behind "=", or the next blob.
  std::string Bytes() {
    std::string field = Text();
    if (field.starts_with('=')) return field.substr(1);
    return next_blob_ < blobs_.size() ? std::move(blobs_[next_blob_++]) : std::string();
  }

 private:
  Guard& guard_;
  std::string_view left_;
  std::vector<std::string> blobs_;
  size_t next_blob_ = 0;
};

// In the order of src/engine/native/batch.ts.
BatchOp ReadBatchOp(Guard& guard, Fields& from) {
  BatchOp op;
  op.kind = Named(guard, kBatchKinds, from.Text(), "op");
  op.path = from.Text();
  const auto owner = [&] {
    op.uid = from.OptionalNumber("uid");
    op.gid = from.OptionalNumber("gid");
  };
  switch (op.kind) {
    case BatchKind::kMkdir:
      op.mode = from.Number("mode");
      op.exist_ok = from.Flag();
      owner();
      break;
    case BatchKind::kWrite:
      op.mode = from.Number("mode");
      op.data = from.Bytes();
      op.sync = from.Flag();
      op.write_back = from.Flag();
      owner();
      break;
    case BatchKind::kSymlink:
      op.dest = from.Text();
      break;
    case BatchKind::kRename:
      op.dest = from.Text();
      op.no_replace = from.Flag();
      break;
    case BatchKind::kExchange:
      op.dest = from.Text();
      break;
    case BatchKind::kUnlink:
    case BatchKind::kRmdir:
      op.missing_ok = from.Flag();
      break;
    case BatchKind::kChmod:
      op.mode = from.Number("mode");
      break;
    case BatchKind::kChown:
      owner();
      break;
    case BatchKind::kSetxattr:
      op.name = from.Text();
      op.data = from.Bytes();
      break;
    case BatchKind::kRemovexattr:
      op.name = from.Text();
      op.missing_ok = from.Flag();
      break;
    case BatchKind::kMknod:
      op.mode = from.Number("mode");
      op.major = from.Number("major");
      op.minor = from.Number("minor");
      break;
    case BatchKind::kFsync:
      break;
  }
  return op;
}

class FileLockObject : public Napi::ObjectWrap<FileLockObject> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "FileLock", {InstanceMethod<&FileLockObject::Release>("release")});
  }
  explicit FileLockObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FileLockObject>(info) {}
  ~FileLockObject() override { UnlockFile(std::move(fd_)); }

  void Take(UniqueFd fd) { fd_ = std::move(fd); }

 private:
  void Release(const Napi::CallbackInfo&) { UnlockFile(std::move(fd_)); }

  UniqueFd fd_;
};

const char* OutcomeName(UnmountOutcome outcome) {
  switch (outcome) {
    case UnmountOutcome::kStranger:
      return "stranger";
    case UnmountOutcome::kTargetKept:
      return "kept";
    case UnmountOutcome::kDone:
      break;
  }
  return "done";
}

// An unmount that found the target busy tells who holds it.
class UnmountJob : public Job {
 public:
  using Work = std::function<Result<UnmountOutcome>(const std::string& target)>;
  UnmountJob(napi_deferred deferred, std::string target, Work work)
      : deferred_(deferred), target_(std::move(target)), work_(std::move(work)) {}

  void Run() override {
    result_ = work_(target_);
    if (!result_ && result_.error().err == EBUSY) holders_ = FindHolders(target_);
  }
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
  Work work_;
  Result<UnmountOutcome> result_ = UnmountOutcome::kStranger;
  std::vector<Holder> holders_;
};

}  // namespace

Napi::Function DefineFileLock(Napi::Env env) { return FileLockObject::Define(env); }

namespace {

OverlayMount ReadOverlayMount(Guard& guard, const Napi::Object& source) {
  OverlayMount mount;
  mount.upper = guard.OptionalText(source.Get("upper"), "upper");
  mount.work = guard.OptionalText(source.Get("work"), "work");
  mount.lowers = guard.TextList(source.Get("lowers"), "lowers");
  mount.target = guard.Text(source.Get("target"), "target");
  mount.options = guard.TextList(source.Get("options"), "options");
  mount.tier = Named(guard, kTiers, guard.Text(source.Get("tier"), "tier"), "tier");
  return mount;
}

Napi::Value StartUnmount(Napi::Env env, std::string target, UnmountJob::Work work) {
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  if (napi_create_promise(env, &deferred, &promise) != napi_ok) return env.Undefined();
  Environment::Of(env).Start(std::make_unique<UnmountJob>(deferred, std::move(target), std::move(work)));
  return Napi::Value(env, promise);
}

}  // namespace

Napi::Value MountOnNewTargetCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  OverlayMount mount = ReadOverlayMount(guard, guard.Object(info[0], "mount"));
  const auto mode = static_cast<uint32_t>(guard.Count(info[1], "mode"));
  if (guard.failed()) return env.Undefined();
  // Without a token, as below.
  return Environment::Of(env).Async<AttachedMount>(
      nullptr, [mount = std::move(mount), mode] { return MountOnNewTarget(mount, mode); },
      [](Napi::Env at, AttachedMount& attached) -> Napi::Value {
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
  if (guard.failed()) return env.Undefined();
  return StartUnmount(env, std::move(target),
                      [device](const std::string& path) { return UnmountAndRemove(path, device); });
}

Napi::Value MountOverlayCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  OverlayMount mount = ReadOverlayMount(guard, guard.Object(info[0], "mount"));
  if (guard.failed()) return env.Undefined();
  // Without a token: a mount that succeeded is never reported as cancelled.
  return Environment::Of(env).Async<MountTier>(
      nullptr, [mount = std::move(mount)] { return MountOverlay(mount); },
      [](Napi::Env at, MountTier& tier) -> Napi::Value { return Napi::String::New(at, TierName(tier)); });
}

Napi::Value UnmountCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string target = guard.Text(info[0], "target");
  const bool detach = guard.Flag(info[1], "detach");
  if (guard.failed()) return env.Undefined();
  return StartUnmount(env, std::move(target), [detach](const std::string& path) -> Result<UnmountOutcome> {
    LS_TRY(Unmount(path, detach));
    return UnmountOutcome::kDone;
  });
}

Napi::Value MountsCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string directory = guard.Text(info[0], "directory");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<std::vector<MountInfo>>(
      nullptr, [directory = std::move(directory)] { return ReadMounts(directory); },
      [](Napi::Env at, std::vector<MountInfo>& mounts) -> Napi::Value {
        Napi::Array list = Napi::Array::New(at, mounts.size());
        for (uint32_t i = 0; i < mounts.size(); ++i) {
          const MountInfo& mount = mounts[i];
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

Napi::Value BatchCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  if (!info[0].IsString()) guard.Fail("ops", "a string");
  std::vector<std::string> blobs;
  if (info[1].IsArray()) {
    const auto list = info[1].As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); ++i) blobs.push_back(guard.Bytes(list.Get(i), "blobs"));
  }
  if (guard.failed()) return env.Undefined();
  const std::string text = info[0].As<Napi::String>().Utf8Value();
  Fields fields(guard, text, std::move(blobs));
  std::vector<BatchOp> ops;
  while (fields.more() && !guard.failed()) ops.push_back(ReadBatchOp(guard, fields));
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).AsyncVoid(nullptr, [ops = std::move(ops)] { return RunBatch(ops); });
}

Napi::Value SyncFsCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::vector<std::string> paths = guard.TextList(info[0], "paths");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).AsyncVoid(nullptr, [paths = std::move(paths)] { return SyncFileSystems(paths); });
}

Napi::Value LockCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string path = guard.Text(info[0], "path");
  const bool exclusive = guard.Flag(info[1], "exclusive");
  if (guard.failed()) return env.Undefined();
  using Lock = std::optional<UniqueFd>;
  return Environment::Of(env).Async<Lock>(
      nullptr, [path = std::move(path), exclusive] { return LockFile(path, exclusive); },
      [](Napi::Env at, Lock& lock) -> Napi::Value {
        if (!lock.has_value()) return at.Undefined();
        Napi::Object object = Environment::Of(at).file_lock.New({});
        // The environment is ending: the descriptor closes with `lock`.
        if (object.IsEmpty()) return at.Undefined();
        FileLockObject::Unwrap(object)->Take(std::move(*lock));
        return object;
      });
}

Napi::Value FeaturesCall(const Napi::CallbackInfo& info) {
  Napi::Object features = Napi::Object::New(info.Env());
  for (const auto& [name, value] : ProbeKernel()) features.Set(name, value);
  const MountProbe& mount = ProbeMount();
  features.Set("fsopen", mount.fsopen);
  features.Set("lowerdir+", mount.lowerdir_plus);
  features.Set("fsconfig-fd", mount.fsconfig_fd);
  features.Set("mount", TierName(BestMountTier()));
  features.Set("gzip", GzipBackend());
  features.Set("isal",
               std::string(GzipBackend()) == "isal" ? "yes" : "no: built without ISA-L, so gzip is read by zlib");
  features.Set("zstd", ZstdBackend());
  features.Set("crc64", Crc64Backend());
  return features;
}

}  // namespace layerstore::binding
