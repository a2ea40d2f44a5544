// The calls of the contract that reach the kernel, mount nothing and move no layer's bytes. JavaScript thread.
#pragma once

#include <napi.h>

namespace layerstore::binding {

Napi::Value BatchCall(const Napi::CallbackInfo& info);
Napi::Value ReadSmallFilesCall(const Napi::CallbackInfo& info);
Napi::Value NamesCall(const Napi::CallbackInfo& info);
Napi::Value SyncFsCall(const Napi::CallbackInfo& info);
Napi::Value LockCall(const Napi::CallbackInfo& info);
Napi::Value FeaturesCall(const Napi::CallbackInfo& info);

// What lock() resolves to: `release()` gives the lock back, and so does the end of the environment.
Napi::Function DefineFileLock(Napi::Env env);

}  // namespace layerstore::binding
