#include "binding/kernel.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <string_view>
#include <utility>

#include "binding/convert.h"
#include "binding/environment.h"
#include "binding/mounts.h"
#include "codec/decoder.h"
#include "hash/crc64.h"
#include "mount/probe.h"
#include "sys/batch.h"
#include "sys/files.h"
#include "sys/probe.h"

namespace layerstore::binding {
namespace {

constexpr std::pair<const char*, BatchKind> kBatchKinds[] = {
    {"mkdir", BatchKind::kMkdir},       {"write", BatchKind::kWrite},       {"symlink", BatchKind::kSymlink},
    {"rename", BatchKind::kRename},     {"exchange", BatchKind::kExchange}, {"unlink", BatchKind::kUnlink},
    {"rmdir", BatchKind::kRmdir},       {"chmod", BatchKind::kChmod},       {"chown", BatchKind::kChown},
    {"setxattr", BatchKind::kSetxattr}, {"mknod", BatchKind::kMknod},       {"removexattr", BatchKind::kRemovexattr},
    {"fsync", BatchKind::kFsync}};

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

}  // namespace

Napi::Function DefineFileLock(Napi::Env env) { return FileLockObject::Define(env); }

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
  const bool syncs =
      std::ranges::any_of(ops, [](const BatchOp& op) { return op.sync || op.kind == BatchKind::kFsync; });
  return Environment::Of(env).AsyncVoid(nullptr, syncs ? Pace::kSteady : Pace::kBrief,
                                        [ops = std::move(ops)] { return RunBatch(ops); });
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
