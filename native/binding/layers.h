// The calls of the contract that work on layers' trees and tars. JavaScript thread.
#pragma once

#include <napi.h>

namespace layerstore::binding {

Napi::Value ExportTarCall(const Napi::CallbackInfo& info);
Napi::Value RecordedSizeCall(const Napi::CallbackInfo& info);
Napi::Value HashFileCall(const Napi::CallbackInfo& info);
Napi::Value ChangesCall(const Napi::CallbackInfo& info);
Napi::Value DiffSizeCall(const Napi::CallbackInfo& info);
Napi::Value CommitTreeCall(const Napi::CallbackInfo& info);
Napi::Value UsageCall(const Napi::CallbackInfo& info);
Napi::Value CopyTreeCall(const Napi::CallbackInfo& info);
Napi::Value RemoveTreeCall(const Napi::CallbackInfo& info);
Napi::Value VerifyTreeCall(const Napi::CallbackInfo& info);

}  // namespace layerstore::binding
