// tar::Reader of the contract: a tar that JavaScript pulls, while a thread runs ahead of it. JavaScript thread; the
// work runs as a Job that does not keep the event loop alive: only a pending read() does.
#pragma once

#include <napi.h>

#include <memory>

namespace layerstore::binding {

class TarReaderState;

class TarReaderObject : public Napi::ObjectWrap<TarReaderObject> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit TarReaderObject(const Napi::CallbackInfo& info);
  ~TarReaderObject() override;

 private:
  Napi::Value Read(const Napi::CallbackInfo& info);
  Napi::Value Destroy(const Napi::CallbackInfo& info);

  std::shared_ptr<TarReaderState> state_;
};

}  // namespace layerstore::binding
