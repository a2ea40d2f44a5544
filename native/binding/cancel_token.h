// CancelToken of the contract: asks running work to stop, and gives its progress. JavaScript thread.
#pragma once

#include <napi.h>

#include <memory>

#include "binding/environment.h"
#include "sys/control.h"

namespace layerstore::binding {

class CancelTokenObject : public Napi::ObjectWrap<CancelTokenObject> {
 public:
  static Napi::Function Define(Napi::Env env);
  static constexpr napi_type_tag kTag{0x6c61796572746f6b, 0x656e2d63616e6365};
  explicit CancelTokenObject(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<CancelTokenObject>(info), control_(std::make_shared<Control>()) {
    info.This().As<Napi::Object>().TypeTag(&kTag);
  }

  [[nodiscard]] const std::shared_ptr<Control>& control() const { return control_; }

 private:
  void Cancel(const Napi::CallbackInfo& info);
  Napi::Value ReadProgress(const Napi::CallbackInfo& info);

  std::shared_ptr<Control> control_;
};

// { bytesRead, bytesUnpacked, entries }
Napi::Object ProgressRecord(Napi::Env env, const Progress& progress);

}  // namespace layerstore::binding
