// The calls of the contract that reach the kernel and move no layer's bytes. JavaScript thread.
#pragma once

#include <napi.h>

namespace layerstore::binding {

Napi::Value MountOverlayCall(const Napi::CallbackInfo& info);
Napi::Value UnmountCall(const Napi::CallbackInfo& info);
Napi::Value MountOnNewTargetCall(const Napi::CallbackInfo& info);
Napi::Value UnmountAndRemoveCall(const Napi::CallbackInfo& info);
Napi::Value MountsCall(const Napi::CallbackInfo& info);
Napi::Value BatchCall(const Napi::CallbackInfo& info);
Napi::Value SyncFsCall(const Napi::CallbackInfo& info);
Napi::Value LockCall(const Napi::CallbackInfo& info);
Napi::Value FeaturesCall(const Napi::CallbackInfo& info);

// What lock() resolves to: `release()` gives the lock back, and so does the end of the environment.
Napi::Function DefineFileLock(Napi::Env env);

}  // namespace layerstore::binding
