// The requests of the contract, read from JavaScript objects. JavaScript thread.
#pragma once

#include <napi.h>

#include <optional>
#include <string>

#include "binding/convert.h"
#include "pack/pack.h"
#include "sys/fd_io.h"
#include "tree/tree.h"
#include "unpack/ingest.h"

namespace layerstore::binding {

unpack::IngestRequest ReadIngestRequest(Guard& guard, const Napi::Object& source);

// `path`, `offset` and `length`; nullopt where `path` is undefined.
struct FileRange {
  std::string path;
  uint64_t offset = 0;
  std::optional<uint64_t> length;
};
std::optional<FileRange> ReadFileRange(Guard& guard, const Napi::Object& source);
Result<std::unique_ptr<sys::FdSource>> OpenRange(const FileRange& range);

tree::Whiteouts ReadWhiteouts(Guard& guard, const Napi::Value& value);
tree::Privilege ReadPrivilege(Guard& guard, const Napi::Value& value);
tree::DiffRequest ReadDiffRequest(Guard& guard, const Napi::Object& source);
const char* CompressionName(codec::Compression compression);

// A tar of either kind, and how to write it. The kind is told by `kind`.
struct TarRequest {
  std::optional<pack::AssembleRequest> assemble;
  std::optional<tree::DiffRequest> tree;
  Result<pack::TarSummary> WriteTo(ByteSink& sink, const CancelToken& cancel) const;
};
TarRequest ReadTarRequest(Guard& guard, const Napi::Object& source);

}  // namespace layerstore::binding
