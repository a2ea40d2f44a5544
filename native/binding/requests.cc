#include "binding/requests.h"

#include "pack/pack.h"
#include "sys/fd_io.h"
#include "unpack/ingest.h"

namespace layerstore::binding {
namespace {

unpack::UnpackLimits ReadLimits(Guard& guard, const Napi::Object& source) {
  unpack::UnpackLimits limits;
  const auto read = [&](const char* name) { return guard.Count(guard.Member(source, name), name); };
  limits.max_bytes = read("maxBytes");
  limits.max_entries = read("maxEntries");
  limits.max_ratio = guard.Ratio(guard.Member(source, "maxRatio"), "maxRatio");
  limits.max_path_length = read("maxPathLength");
  limits.max_path_depth = read("maxPathDepth");
  limits.max_header_bytes = read("maxHeaderBytes");
  limits.max_xattr_bytes = read("maxXattrBytes");
  limits.max_xattrs = read("maxXattrs");
  limits.max_link_length = read("maxLinkLength");
  limits.max_window = read("maxWindow");
  limits.max_kept_bytes = read("maxKeptBytes");
  limits.min_free_bytes = read("minFreeBytes");
  return limits;
}

tree::TreeStack ReadStack(Guard& guard, const Napi::Object& source) {
  tree::TreeStack stack;
  stack.directories = guard.TextList(guard.Member(source, "directories"), "directories");
  stack.whiteouts = ReadWhiteouts(guard, guard.Member(source, "whiteouts"));
  return stack;
}

}  // namespace

unpack::IngestRequest ReadIngestRequest(Guard& guard, const Napi::Object& source) {
  unpack::IngestRequest request;
  request.directory = guard.Text(guard.Member(source, "directory"), "directory");
  request.whiteouts = ReadWhiteouts(guard, guard.Member(source, "whiteouts"));
  request.privilege = ReadPrivilege(guard, guard.Member(source, "privilege"));
  request.tar_split_path = guard.OptionalText(guard.Member(source, "tarSplit"), "tarSplit");
  request.hash_blob = guard.Flag(guard.Member(source, "hashBlob"), "hashBlob");
  request.limits = ReadLimits(guard, guard.Object(guard.Member(source, "limits"), "limits"));
  return request;
}

std::optional<FileRange> ReadFileRange(Guard& guard, const Napi::Object& source) {
  const Napi::Value path = guard.Member(source, "path");
  if (path.IsUndefined()) return std::nullopt;
  FileRange range;
  range.path = guard.Text(path, "path");
  const Napi::Value length = guard.Member(source, "length");
  if (!length.IsUndefined()) {
    range.offset = guard.Count(guard.Member(source, "offset"), "offset");
    range.length = guard.Count(length, "length");
  }
  return range;
}

Result<std::unique_ptr<sys::FdSource>> OpenRange(const FileRange& range) {
  if (!range.length) return sys::FdSource::Open(range.path);
  return sys::FdSource::OpenRange(range.path, range.offset, *range.length);
}

tree::Whiteouts ReadWhiteouts(Guard& guard, const Napi::Value& value) {
  const std::string text = guard.Text(value, "whiteouts");
  if (text == "overlay") return tree::Whiteouts::kOverlay;
  if (text == "overlay-user") return tree::Whiteouts::kOverlayUser;
  if (text != "plain") guard.Fail("whiteouts", "\"overlay\", \"overlay-user\" or \"plain\"");
  return tree::Whiteouts::kApply;
}

tree::Privilege ReadPrivilege(Guard& guard, const Napi::Value& value) {
  const std::string text = guard.Text(value, "privilege");
  if (text == "namespace") return tree::Privilege::kNamespace;
  if (text == "none") return tree::Privilege::kNone;
  if (text != "full") guard.Fail("privilege", "\"full\", \"namespace\" or \"none\"");
  return tree::Privilege::kFull;
}

tree::DiffRequest ReadDiffRequest(Guard& guard, const Napi::Object& source) {
  tree::DiffRequest request;
  request.upper = ReadStack(guard, guard.Object(guard.Member(source, "upper"), "upper"));
  const Napi::Value lower = guard.Member(source, "lower");
  if (!lower.IsUndefined()) request.lower = ReadStack(guard, guard.Object(lower, "lower"));
  request.sparse = guard.Flag(guard.Member(source, "sparse"), "sparse");
  const Napi::Value whiteouts_of = guard.Member(source, "whiteoutsOf");
  if (!whiteouts_of.IsUndefined()) request.whiteouts_of = ReadStack(guard, guard.Object(whiteouts_of, "whiteoutsOf"));
  return request;
}

const char* CompressionName(codec::Compression compression) {
  switch (compression) {
    case codec::Compression::kGzip:
      return "gzip";
    case codec::Compression::kZstd:
      return "zstd";
    case codec::Compression::kNone:
      break;
  }
  return "none";
}

TarRequest ReadTarRequest(Guard& guard, const Napi::Object& source) {
  TarRequest request;
  const std::string kind = guard.Text(guard.Member(source, "kind"), "kind");
  if (kind == "assemble") {
    pack::AssembleRequest assemble;
    assemble.tar_split_path = guard.Text(guard.Member(source, "tarSplit"), "tarSplit");
    assemble.directory = guard.Text(guard.Member(source, "directory"), "directory");
    assemble.diff_id = guard.Digest(guard.Member(source, "diffID"), "diffID");
    request.assemble = std::move(assemble);
  } else {
    if (kind != "tree") guard.Fail("kind", "\"assemble\" or \"tree\"");
    request.tree = ReadDiffRequest(guard, source);
  }
  return request;
}

Result<pack::TarSummary> TarRequest::WriteTo(ByteSink& sink, const CancelToken& cancel) const {
  return assemble ? pack::Assemble(*assemble, sink, cancel) : pack::WriteTreeTar(*tree, sink, cancel);
}

}  // namespace layerstore::binding
