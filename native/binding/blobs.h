// The calls of the contract that write layers as blobs. JavaScript thread.
#pragma once

#include <napi.h>

namespace layerstore::binding {

Napi::Value ExportBlobCall(const Napi::CallbackInfo& info);
Napi::Value RecordedSizeCall(const Napi::CallbackInfo& info);

}  // namespace layerstore::binding
