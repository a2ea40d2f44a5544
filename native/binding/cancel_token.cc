#include "binding/cancel_token.h"

#include "sys/control.h"

namespace layerstore::binding {

Napi::Function CancelTokenObject::Define(Napi::Env env) {
  return DefineClass(env, "CancelToken",
                     {
                         InstanceMethod<&CancelTokenObject::Cancel>("cancel"),
                         InstanceMethod<&CancelTokenObject::ReadProgress>("progress"),
                     });
}

void CancelTokenObject::Cancel(const Napi::CallbackInfo&) { control_->cancel.Cancel(); }

Napi::Value CancelTokenObject::ReadProgress(const Napi::CallbackInfo& info) {
  return ProgressRecord(info.Env(), control_->progress);
}

Napi::Object ProgressRecord(Napi::Env env, const Progress& progress) {
  Napi::Object record = Napi::Object::New(env);
  record.Set("bytesRead", Number(env, progress.bytes_read.load(std::memory_order_relaxed)));
  record.Set("bytesUnpacked", Number(env, progress.bytes_unpacked.load(std::memory_order_relaxed)));
  record.Set("entries", Number(env, progress.entries.load(std::memory_order_relaxed)));
  return record;
}

}  // namespace layerstore::binding
