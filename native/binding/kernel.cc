#include "binding/kernel.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "binding/convert.h"
#include "binding/environment.h"
#include "binding/mounts.h"
#include "codec/decoder.h"
#include "hash/crc64.h"
#include "mount/probe.h"
#include "sys/batch.h"
#include "sys/directory.h"
#include "sys/fd_io.h"
#include "sys/probe.h"
#include "sys/small_files.h"
#include "sys/thread_pool.h"

namespace layerstore::binding {
namespace {

constexpr std::pair<const char*, sys::BatchKind> kBatchKinds[] = {
    {"mkdir", sys::BatchKind::kMkdir},       {"write", sys::BatchKind::kWrite},
    {"symlink", sys::BatchKind::kSymlink},   {"rename", sys::BatchKind::kRename},
    {"exchange", sys::BatchKind::kExchange}, {"unlink", sys::BatchKind::kUnlink},
    {"rmdir", sys::BatchKind::kRmdir},       {"chmod", sys::BatchKind::kChmod},
    {"chown", sys::BatchKind::kChown},       {"setxattr", sys::BatchKind::kSetxattr},
    {"mknod", sys::BatchKind::kMknod},       {"removexattr", sys::BatchKind::kRemovexattr},
    {"fsync", sys::BatchKind::kFsync}};

// BatchOp of src/engine/batch-types.ts.
sys::BatchOp ReadBatchOp(Guard& guard, const Napi::Object& source) {
  const auto member = [&](const char* name) { return guard.Member(source, name); };
  const auto text = [&](const char* name) { return guard.Text(member(name), name); };
  const auto flag = [&](const char* name) { return guard.Flag(member(name), name); };
  const auto word = [&](const char* name) { return guard.Word(member(name), name); };
  sys::BatchOp op;
  op.kind = Named(guard, kBatchKinds, text("op"), "op");
  op.path = text("path");
  const auto owner = [&] {
    op.uid = guard.OptionalWord(member("uid"), "uid");
    op.gid = guard.OptionalWord(member("gid"), "gid");
  };
  switch (op.kind) {
    case sys::BatchKind::kMkdir:
      op.mode = word("mode");
      op.exist_ok = flag("existOk");
      owner();
      break;
    case sys::BatchKind::kWrite:
      op.mode = word("mode");
      op.data = guard.Bytes(member("data"), "data");
      op.sync = flag("sync");
      owner();
      break;
    case sys::BatchKind::kSymlink:
      op.dest = text("target");
      break;
    case sys::BatchKind::kRename:
      op.dest = text("dest");
      op.no_replace = flag("noReplace");
      break;
    case sys::BatchKind::kExchange:
      op.dest = text("dest");
      break;
    case sys::BatchKind::kUnlink:
    case sys::BatchKind::kRmdir:
      op.missing_ok = flag("missingOk");
      break;
    case sys::BatchKind::kChmod:
      op.mode = word("mode");
      break;
    case sys::BatchKind::kChown:
      owner();
      break;
    case sys::BatchKind::kSetxattr:
      op.name = text("name");
      op.data = guard.Bytes(member("value"), "value");
      break;
    case sys::BatchKind::kRemovexattr:
      op.name = text("name");
      op.missing_ok = flag("missingOk");
      break;
    case sys::BatchKind::kMknod:
      op.mode = word("mode");
      op.major = word("major");
      op.minor = word("minor");
      break;
    case sys::BatchKind::kFsync:
      break;
  }
  return op;
}

// Each row's values one after the other: a value of its own for each of thousands of rows would cost more than the
// files.
Napi::Value SmallFileTable(Napi::Env env, std::vector<sys::SmallFilesRow>& rows) {
  Napi::Array table = Napi::Array::New(env);
  uint32_t at = 0;
  const auto push = [&](napi_value value) { napi_set_element(env, table, at++, value); };
  for (const sys::SmallFilesRow& row : rows) {
    if (!IsUtf8(row.directory)) continue;
    const Napi::HandleScope scope(env);
    push(Napi::String::New(env, row.directory));
    for (const sys::SmallFile& file : row.files) {
      napi_value value = env.Undefined();
      if (file.content) {
        napi_create_string_latin1(env, file.content->data(), file.content->size(), &value);
      } else if (file.err != 0) {
        value = Napi::Number::New(env, file.err);
      }
      push(value);
    }
  }
  return table;
}

class FileLockObject : public Napi::ObjectWrap<FileLockObject> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "FileLock", {InstanceMethod<&FileLockObject::Release>("release")});
  }
  explicit FileLockObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FileLockObject>(info) {}
  ~FileLockObject() override { sys::UnlockFile(std::move(fd_)); }

  void Take(UniqueFd fd) { fd_ = std::move(fd); }

 private:
  void Release(const Napi::CallbackInfo&) { sys::UnlockFile(std::move(fd_)); }

  UniqueFd fd_;
};

}  // namespace

Napi::Function DefineFileLock(Napi::Env env) { return FileLockObject::Define(env); }

Napi::Value BatchCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::vector<sys::BatchOp> ops;
  guard.ForEach(info[0], "ops", [&](const Napi::Value& op) {
    const Napi::HandleScope scope(env);  // thousands of steps would otherwise keep their members' handles
    ops.push_back(ReadBatchOp(guard, guard.Object(op, "op")));
  });
  if (guard.failed()) return env.Undefined();
  const bool syncs =
      std::ranges::any_of(ops, [](const sys::BatchOp& op) { return op.sync || op.kind == sys::BatchKind::kFsync; });
  return Environment::Of(env).AsyncVoid(nullptr, syncs ? sys::TaskClass::kBlocking : sys::TaskClass::kShort,
                                        [ops = std::move(ops)] { return sys::RunBatch(ops); });
}

Napi::Value ReadSmallFilesCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string directory = guard.Text(info[0], "directory");
  std::vector<std::string> names = guard.TextList(info[1], "names");
  // One buffer of this size is kept while the files are read.
  const auto max_bytes = static_cast<size_t>(std::min(guard.Count(info[2], "maxBytes"), uint64_t{64} << 20));
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<std::vector<sys::SmallFilesRow>>(
      nullptr,
      [directory = std::move(directory), names = std::move(names), max_bytes] {
        return sys::ReadSmallFiles(directory, names, max_bytes);
      },
      SmallFileTable);
}

Napi::Value NamesCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string directory = guard.Text(info[0], "directory");
  const bool directories = guard.Flag(info[1], "directories");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<std::string>(
      nullptr, [directory = std::move(directory), directories] { return sys::ListNames(directory, directories); },
      [](Napi::Env at, std::string& names) -> Napi::Value { return Napi::String::New(at, names); });
}

Napi::Value SyncFsCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::vector<std::string> paths = guard.TextList(info[0], "paths");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).AsyncVoid(nullptr, [paths = std::move(paths)] { return sys::SyncFileSystems(paths); });
}

Napi::Value LockCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string path = guard.Text(info[0], "path");
  const bool exclusive = guard.Flag(info[1], "exclusive");
  if (guard.failed()) return env.Undefined();
  using Lock = std::optional<UniqueFd>;
  return Environment::Of(env).Async<Lock>(
      nullptr, [path = std::move(path), exclusive] { return sys::LockFile(path, exclusive); },
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
  for (const auto& [name, value] : sys::ProbeKernel()) features.Set(name, value);
  const mount::MountProbe& mount = mount::ProbeMount();
  features.Set("fsopen", mount.fsopen);
  features.Set("lowerdir+", mount.lowerdir_plus);
  features.Set("fsconfig-fd", mount.fsconfig_fd);
  features.Set("mount", TierName(mount::BestMountTier()));
  features.Set("gzip", codec::GzipBackend());
  features.Set(
      "isal", std::string(codec::GzipBackend()) == "isal" ? "yes" : "no: built without ISA-L, so gzip is read by zlib");
  features.Set("zstd", codec::ZstdBackend());
  features.Set("crc64", hash::Crc64Backend());
  return features;
}

}  // namespace layerstore::binding
