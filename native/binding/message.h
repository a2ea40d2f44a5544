// Message: sent by a native thread to the JavaScript thread of one environment.
// Made on any thread; Deliver() runs on the JavaScript thread, or never where the environment ends first. The
// destructor may run on either, so a Message owns nothing that belongs to JavaScript but bare handles that die with it.
#pragma once

#include <napi.h>

namespace layerstore::binding {

class Job;

class Message {
 public:
  Message() = default;
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
  virtual ~Message() = default;
  virtual void Deliver(Napi::Env env) = 0;
  // The Job whose end this is; null for any other message.
  virtual Job* AsJob() { return nullptr; }
};

}  // namespace layerstore::binding
