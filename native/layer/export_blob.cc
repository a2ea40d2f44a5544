#include "layer/export_blob.h"

#include "codec/encoder.h"
#include "layer/hashed_sink.h"
#include "layer/layer_files.h"

namespace layerstore {
namespace {

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

Result<BlobSummary> ExportBlob(const AssembleRequest& request, Compression form, ByteSink& sink, Progress& progress,
                               const CancelToken& cancel) {
  BlobSummary summary;
  if (form == Compression::kNone) {
    CountingSink counted(sink, progress.bytes_read);
    LS_ASSIGN(summary.tar, Assemble(request, counted, cancel));
    summary.bytes = summary.tar.bytes;
    summary.digest = summary.tar.diff_id;
    return summary;
  }
  LS_ASSIGN(const std::unique_ptr<HashedSink> blob, HashedSink::Open(sink));
  LS_ASSIGN(const std::unique_ptr<Encoder> encoder, Encoder::Open(form, *blob));
  CountingSink counted(*encoder, progress.bytes_read);
  LS_ASSIGN(summary.tar, Assemble(request, counted, cancel));
  LS_TRY(encoder->Finish());
  LS_ASSIGN(summary.digest, blob->Finish());
  summary.bytes = blob->bytes();
  return summary;
}

Result<uint64_t> RecordedSize(const std::string& tar_split_path, const CancelToken& cancel) {
  LS_ASSIGN(const std::unique_ptr<TarSplitFile> record, TarSplitFile::Open(tar_split_path));
  uint64_t size = 0;
  SplitEntry entry;
  for (;;) {
    if (cancel.cancelled()) return Cancelled();
    LS_ASSIGN(const bool more, record->Next(entry));
    if (!more) return size;
    size += entry.type == SplitEntry::Type::kSegment ? entry.segment.size() : entry.size;
  }
}

}  // namespace layerstore
