#include "binding/records.h"

#include <algorithm>
#include <utility>

#include "binding/convert.h"
#include "binding/environment.h"
#include "layer/layer_records.h"
#include "sys/directory.h"
#include "sys/records.h"

namespace layerstore::binding {
namespace {

// Flat, since an object for each row costs more to make from here than its files: a directory's name, then for each
// file its content, the number of what failed, or undefined.
Napi::Value RecordTable(Napi::Env env, std::vector<RecordRow>& rows) {
  Napi::Array table = Napi::Array::New(env);
  uint32_t at = 0;
  const auto push = [&](napi_value value) { napi_set_element(env, table, at++, value); };
  for (const RecordRow& row : rows) {
    if (!IsUtf8(row.directory)) continue;
    const Napi::HandleScope scope(env);
    push(Napi::String::New(env, row.directory));
    for (const RecordFile& file : row.files) {
      napi_value value = env.Undefined();
      if (file.content) {
        napi_create_string_latin1(env, file.content->data(), file.content->size(), &value);
      } else if (file.err != 0) {
        value = Napi::Number::New(env, file.err);
      }
      push(value);
    }
  }
  return table;
}

template <typename Array, typename T>
Napi::Value Numbers(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

// A few large values: thousands of small ones cost more to make from here, and to collect, than the records to read.
Napi::Value LayerRecordTable(Napi::Env env, LayerRecords& records) {
  Napi::Object table = Napi::Object::New(env);
  napi_value text = nullptr;
  napi_create_string_latin1(env, records.text.data(), records.text.size(), &text);
  table.Set("text", text);
  table.Set("ends", Numbers<Napi::Uint32Array>(env, records.ends));
  table.Set("sizes", Numbers<Napi::Float64Array>(env, records.sizes));
  table.Set("parents", Numbers<Napi::Int32Array>(env, records.parents));
  Napi::Array descriptors = Napi::Array::New(env);
  for (const auto& [row, content] : records.descriptors) {
    descriptors.Set(descriptors.Length(), Napi::Number::New(env, row));
    descriptors.Set(descriptors.Length(), Napi::String::New(env, content));
  }
  table.Set("descriptors", descriptors);
  Napi::Array others = Napi::Array::New(env, records.others.size());
  for (uint32_t i = 0; i < records.others.size(); ++i) others.Set(i, Napi::String::New(env, records.others[i]));
  table.Set("others", others);
  table.Set("housed", Napi::Boolean::New(env, records.housed));
  return table;
}

}  // namespace

Napi::Value ReadRecordsCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string directory = guard.Text(info[0], "directory");
  std::vector<std::string> names = guard.TextList(info[1], "names");
  // One buffer of this size is kept while the records are read.
  const auto max_bytes = static_cast<size_t>(std::min(guard.Count(info[2], "maxBytes"), uint64_t{64} << 20));
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<std::vector<RecordRow>>(
      nullptr,
      [directory = std::move(directory), names = std::move(names), max_bytes] {
        return ReadRecords(directory, names, max_bytes);
      },
      RecordTable);
}

Napi::Value ReadLayerRecordsCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string directory = guard.Text(info[0], "directory");
  LayerTrees trees{guard.OptionalText(info[1], "trees"), guard.OptionalText(info[2], "reserved")};
  RecordIndexFile index{guard.OptionalText(info[3], "index"), guard.Flag(info[4], "write")};
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<LayerRecords>(
      nullptr,
      [directory = std::move(directory), trees = std::move(trees), index = std::move(index)] {
        return ReadLayerRecords(directory, trees, index);
      },
      LayerRecordTable);
}

Napi::Value NamesCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string directory = guard.Text(info[0], "directory");
  const bool directories = guard.Flag(info[1], "directories");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<std::string>(
      nullptr, [directory = std::move(directory), directories] { return ListNames(directory, directories); },
      [](Napi::Env at, std::string& names) -> Napi::Value { return Napi::String::New(at, names); });
}

Napi::Value SurveyCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Guard guard(env);
  std::string directory = guard.Text(info[0], "directory");
  if (guard.failed()) return env.Undefined();
  return Environment::Of(env).Async<DirectorySurvey>(
      nullptr, [directory = std::move(directory)] { return SurveyDirectory(directory); },
      [](Napi::Env at, DirectorySurvey& survey) -> Napi::Value {
        Napi::Object result = Napi::Object::New(at);
        result.Set("entries", Napi::Number::New(at, static_cast<double>(survey.entries)));
        result.Set("layers", Napi::Number::New(at, static_cast<double>(survey.layers)));
        result.Set("others", Napi::String::New(at, survey.others));
        return result;
      });
}

}  // namespace layerstore::binding
