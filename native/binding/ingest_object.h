// Ingest of the contract: one registration, fed from a file, from one that grows, or by JavaScript. JavaScript thread;
// the work runs as a Job.
#pragma once

#include <napi.h>

#include <memory>

#include "unpack/ingest.h"

namespace layerstore::binding {

class IngestState;

class IngestObject : public Napi::ObjectWrap<IngestObject> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit IngestObject(const Napi::CallbackInfo& info);
  // The object was garbage-collected, so running work is cancelled: no one can get its result.
  ~IngestObject() override;

 private:
  Napi::Value Start(const Napi::CallbackInfo& info);
  Napi::Value Write(const Napi::CallbackInfo& info);
  void Grow(const Napi::CallbackInfo& info);
  void End(const Napi::CallbackInfo& info);
  void Fail(const Napi::CallbackInfo& info);
  void Cancel(const Napi::CallbackInfo& info);
  Napi::Value ReadProgress(const Napi::CallbackInfo& info);

  std::shared_ptr<IngestState> state_;
};

// The record of a result, of commitTree too.
Napi::Value IngestResultRecord(Napi::Env env, const unpack::IngestResult& result);

}  // namespace layerstore::binding
