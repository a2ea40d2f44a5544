// Assemble: the tar-split record says what stands between the files' data; the data comes from the layer's directory.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "codec/decoder.h"
#include "codec/encoder.h"
#include "hash/crc64.h"
#include "hash/hashed_sink.h"
#include "pack/pack.h"
#include "tarsplit/file.h"
#include "tarsplit/reader.h"
#include "tree/layer_reader.h"

namespace layerstore::pack {
namespace {

// Files of at least this size get the kernel's read-ahead told.
constexpr uint64_t kAdviseBytes = uint64_t{1} << 20;

// Sends one recorded file. The checksum is compared when its last byte is out: the stream's consumer has no good end
// then.
Result<void> SendFile(tree::LayerReader& files, const tarsplit::Entry& entry, hash::HashedSink& sink,
                      const CancelToken& cancel) {
  LS_ASSIGN(const UniqueFd file, files.OpenRecorded(entry));
  if (entry.size >= kAdviseBytes) (void)posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  uint64_t crc = 0;
  for (uint64_t left = entry.size; left > 0;) {
    if (cancel.cancelled()) return Cancelled();
    LS_ASSIGN(std::span<uint8_t> space, sink.Space());
    if (space.size() > left) space = space.first(static_cast<size_t>(left));
    LS_ASSIGN(const size_t got, sys::ReadFull(file.get(), space, entry.name));
    if (got < space.size())
      return DataError(Fault::kCorrupt, "the file became shorter while it was read", entry.name, sink.bytes());
    crc = hash::Crc64Iso(crc, space);
    LS_TRY(sink.Commit(got));
    left -= got;
  }
  if (crc != entry.crc) return tarsplit::ChecksumError(entry, crc);
  return {};
}

// Counts what passes through it.
class CountingSink final : public ByteSink {
 public:
  CountingSink(ByteSink& out, std::atomic<uint64_t>& count) : out_(out), count_(count) {}
  Result<void> Write(std::span<const uint8_t> bytes) override {
    LS_TRY(out_.Write(bytes));
    count_.fetch_add(bytes.size(), std::memory_order_relaxed);
    return {};
  }

 private:
  ByteSink& out_;
  std::atomic<uint64_t>& count_;
};

}  // namespace

Result<TarSummary> Assemble(const AssembleRequest& request, ByteSink& sink, const CancelToken& cancel) {
  LS_ASSIGN(std::unique_ptr<tarsplit::File> record, tarsplit::File::Open(request.tar_split_path));
  LS_ASSIGN(std::unique_ptr<tree::LayerReader> files, tree::LayerReader::Open(request.directory));
  LS_ASSIGN(std::unique_ptr<hash::HashedSink> out, hash::HashedSink::Open(sink));
  tarsplit::Entry entry;
  for (;;) {
    if (cancel.cancelled()) return Cancelled();
    LS_ASSIGN(const bool more, record->Next(entry));
    if (!more) break;
    if (entry.type == tarsplit::Entry::Type::kSegment) {
      LS_TRY(out->Write(entry.segment));
    } else if (entry.size > 0) {
      LS_TRY(SendFile(*files, entry, *out, cancel));
    }
  }
  TarSummary summary;
  summary.bytes = out->bytes();
  LS_ASSIGN(summary.diff_id, out->Finish());
  if (summary.diff_id != request.diff_id) {
    return DataError(
        Fault::kCorrupt,
        "diff id " + hash::FormatDigest(request.diff_id) + ", found " + hash::FormatDigest(summary.diff_id),
        request.tar_split_path, summary.bytes);
  }
  return summary;
}

Result<BlobSummary> ExportBlob(const AssembleRequest& request, codec::Compression form, ByteSink& sink,
                               Progress& progress, const CancelToken& cancel) {
  BlobSummary summary;
  if (form == codec::Compression::kNone) {
    CountingSink counted(sink, progress.bytes_read);
    LS_ASSIGN(summary.tar, Assemble(request, counted, cancel));
    summary.bytes = summary.tar.bytes;
    summary.digest = summary.tar.diff_id;
    return summary;
  }
  LS_ASSIGN(const std::unique_ptr<hash::HashedSink> blob, hash::HashedSink::Open(sink));
  LS_ASSIGN(const std::unique_ptr<codec::Encoder> encoder, codec::Encoder::Open(form, *blob));
  CountingSink counted(*encoder, progress.bytes_read);
  LS_ASSIGN(summary.tar, Assemble(request, counted, cancel));
  LS_TRY(encoder->Finish());
  LS_ASSIGN(summary.digest, blob->Finish());
  summary.bytes = blob->bytes();
  return summary;
}

Result<uint64_t> RecordedSize(const std::string& tar_split_path, const CancelToken& cancel) {
  LS_ASSIGN(const std::unique_ptr<tarsplit::File> record, tarsplit::File::Open(tar_split_path));
  uint64_t size = 0;
  tarsplit::Entry entry;
  for (;;) {
    if (cancel.cancelled()) return Cancelled();
    LS_ASSIGN(const bool more, record->Next(entry));
    if (!more) return size;
    size += entry.type == tarsplit::Entry::Type::kSegment ? entry.segment.size() : entry.size;
  }
}

}  // namespace layerstore::pack
