// Calls of the contract that read small records and directories in bulk. JavaScript thread.
#pragma once

#include <napi.h>

namespace layerstore::binding {

Napi::Value ReadRecordsCall(const Napi::CallbackInfo& info);
Napi::Value ReadLayerRecordsCall(const Napi::CallbackInfo& info);
Napi::Value NamesCall(const Napi::CallbackInfo& info);
Napi::Value SurveyCall(const Napi::CallbackInfo& info);

}  // namespace layerstore::binding
