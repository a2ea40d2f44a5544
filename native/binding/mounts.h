// The calls of the contract that mount, unmount, and read the mount table. JavaScript thread.
#pragma once

#include <napi.h>

#include "mount/overlay.h"

namespace layerstore::binding {

Napi::Value MountOverlayCall(const Napi::CallbackInfo& info);
Napi::Value UnmountCall(const Napi::CallbackInfo& info);
Napi::Value MountOnNewTargetCall(const Napi::CallbackInfo& info);
Napi::Value UnmountAndRemoveCall(const Napi::CallbackInfo& info);
Napi::Value MountsCall(const Napi::CallbackInfo& info);

// The class `DeferredTeardown`: `end()` resolves when the file systems that it keeps have ended.
Napi::Function DefineDeferredTeardown(Napi::Env env);

const char* TierName(mount::MountTier tier);

}  // namespace layerstore::binding
