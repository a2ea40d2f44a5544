// Assemble: the tar-split record says what stands between the files' data; the data comes from the layer's directory.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "codec/decoder.h"
#include "hash/crc64.h"
#include "layer/files.h"
#include "layer/hashed_sink.h"
#include "layer/layer_files.h"
#include "layer/tree.h"
#include "sys/open.h"
#include "tar/split_reader.h"

namespace layerstore {
namespace {

// Files of at least this size get the kernel's read-ahead told.
constexpr uint64_t kAdviseBytes = uint64_t{1} << 20;

// Sends one recorded file. The checksum is compared when its last byte is out: the stream's consumer has no good end
// then.
Result<void> SendFile(LayerFiles& files, const SplitEntry& entry, HashedSink& sink, const CancelToken& cancel) {
  LS_ASSIGN(const UniqueFd file, files.OpenRecorded(entry));
  if (entry.size >= kAdviseBytes) (void)posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  uint64_t crc = 0;
  for (uint64_t left = entry.size; left > 0;) {
    if (cancel.cancelled()) return Cancelled();
    LS_ASSIGN(std::span<uint8_t> space, sink.Space());
    if (space.size() > left) space = space.first(static_cast<size_t>(left));
    LS_ASSIGN(const size_t got, ReadFull(file.get(), space, entry.name));
    if (got < space.size())
      return DataError(Fault::kCorrupt, "the file became shorter while it was read", entry.name, sink.bytes());
    crc = Crc64Iso(crc, space);
    LS_TRY(sink.Commit(got));
    left -= got;
  }
  if (crc != entry.crc) return ChecksumError(entry, crc);
  return {};
}

}  // namespace

Result<TarSummary> Assemble(const AssembleRequest& request, ByteSink& sink, const CancelToken& cancel) {
  LS_ASSIGN(std::unique_ptr<TarSplitFile> record, TarSplitFile::Open(request.tar_split_path));
  LS_ASSIGN(std::unique_ptr<LayerFiles> files, LayerFiles::Open(request.directory));
  LS_ASSIGN(std::unique_ptr<HashedSink> out, HashedSink::Open(sink));
  SplitEntry entry;
  for (;;) {
    if (cancel.cancelled()) return Cancelled();
    LS_ASSIGN(const bool more, record->Next(entry));
    if (!more) break;
    if (entry.type == SplitEntry::Type::kSegment) {
      LS_TRY(out->Write(entry.segment));
    } else if (entry.size > 0) {
      LS_TRY(SendFile(*files, entry, *out, cancel));
    }
  }
  TarSummary summary;
  summary.bytes = out->bytes();
  LS_ASSIGN(summary.diff_id, out->Finish());
  if (summary.diff_id != request.diff_id) {
    return DataError(Fault::kCorrupt,
                     "diff id " + FormatDigest(request.diff_id) + ", found " + FormatDigest(summary.diff_id),
                     request.tar_split_path, summary.bytes);
  }
  return summary;
}

}  // namespace layerstore
