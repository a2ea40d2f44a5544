// The addon's surface: the names of src/engine/native/binding.ts, line by line. The only place that exports anything.
#include <napi.h>

#include "binding/cancel_token.h"
#include "binding/convert.h"
#include "binding/environment.h"
#include "binding/ingest_object.h"
#include "binding/kernel.h"
#include "binding/layers.h"
#include "binding/mounts.h"
#include "binding/tar_reader.h"

namespace layerstore::binding {
namespace {

Napi::Value TurnByCall(const Napi::CallbackInfo& info) {
  Guard guard(info.Env());
  const Napi::Function turn = guard.Function(info[0], "turn");
  if (!guard.failed()) Environment::Of(info.Env()).TurnBy(turn);
  return info.Env().Undefined();
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  Environment* const environment = Environment::Create(env);
  if (environment == nullptr) {
    Napi::Error::New(env, "layerstore: no thread-safe function can be made").ThrowAsJavaScriptException();
    return exports;
  }
  environment->file_lock = Napi::Persistent(DefineFileLock(env));

  exports.Set("CancelToken", CancelTokenObject::Define(env));
  exports.Set("DeferredTeardown", DefineDeferredTeardown(env));
  exports.Set("Ingest", IngestObject::Define(env));
  exports.Set("TarReader", TarReaderObject::Define(env));

  exports.Set("exportTar", Napi::Function::New(env, ExportTarCall, "exportTar"));
  exports.Set("recordedSize", Napi::Function::New(env, RecordedSizeCall, "recordedSize"));
  exports.Set("hashFile", Napi::Function::New(env, HashFileCall, "hashFile"));
  exports.Set("changes", Napi::Function::New(env, ChangesCall, "changes"));
  exports.Set("diffSize", Napi::Function::New(env, DiffSizeCall, "diffSize"));
  exports.Set("commitTree", Napi::Function::New(env, CommitTreeCall, "commitTree"));
  exports.Set("usage", Napi::Function::New(env, UsageCall, "usage"));
  exports.Set("copyTree", Napi::Function::New(env, CopyTreeCall, "copyTree"));
  exports.Set("removeTree", Napi::Function::New(env, RemoveTreeCall, "removeTree"));
  exports.Set("verifyTree", Napi::Function::New(env, VerifyTreeCall, "verifyTree"));

  exports.Set("mountOverlay", Napi::Function::New(env, MountOverlayCall, "mountOverlay"));
  exports.Set("unmount", Napi::Function::New(env, UnmountCall, "unmount"));
  exports.Set("mountOnNewTarget", Napi::Function::New(env, MountOnNewTargetCall, "mountOnNewTarget"));
  exports.Set("unmountAndRemove", Napi::Function::New(env, UnmountAndRemoveCall, "unmountAndRemove"));
  exports.Set("mounts", Napi::Function::New(env, MountsCall, "mounts"));
  exports.Set("batch", Napi::Function::New(env, BatchCall, "batch"));
  exports.Set("readSmallFiles", Napi::Function::New(env, ReadSmallFilesCall, "readSmallFiles"));
  exports.Set("names", Napi::Function::New(env, NamesCall, "names"));
  exports.Set("syncFs", Napi::Function::New(env, SyncFsCall, "syncFs"));
  exports.Set("lock", Napi::Function::New(env, LockCall, "lock"));
  exports.Set("turnBy", Napi::Function::New(env, TurnByCall, "turnBy"));
  exports.Set("features", Napi::Function::New(env, FeaturesCall, "features"));
  return exports;
}

}  // namespace

NODE_API_MODULE(layerstore, Init)

}  // namespace layerstore::binding
