// The ingest pipeline. Threads: `ls-decode` reads and decodes; `ls-hash` hashes the tar, `ls-hash-blob` what it was
// decoded from; `ls-apply` splits, computes checksums and makes the tree; `ls-write` (FileWriter) fills small files;
// `ls-record` (tarsplit::Writer) compresses the record. They share blocks of a MiB and hand them over seldom.
#include "unpack/ingest.h"

#include <fcntl.h>
#include <sys/vfs.h>

#include <algorithm>
#include <utility>

#include "hash/crc64.h"
#include "sys/thread.h"
#include "tar/reader.h"
#include "tarsplit/writer.h"
#include "tree/tree.h"
#include "unpack/applier.h"
#include "unpack/block_hash.h"
#include "unpack/block_queue.h"
#include "unpack/tar_split_rewrite.h"

namespace layerstore::unpack {
namespace {

constexpr uint64_t kRatioFrom = uint64_t{4} << 30;
constexpr uint64_t kFreeSpaceStep = uint64_t{32} << 20;

// What passes through it, hashed where that was asked for.
class BlobSource final : public ByteSource {
 public:
  BlobSource(ByteSource& source, bool hash) : source_(source), hash_(hash) {
    if (source.fd() >= 0) (void)posix_fadvise(source.fd(), 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  Result<size_t> Read(std::span<uint8_t> into) override {
    LS_ASSIGN(const size_t count, source_.Read(into));
    if (hash_) LS_TRY(sha_.AddCopy(into.first(count)));
    return count;
  }
  [[nodiscard]] std::optional<uint64_t> TotalBytes() const override { return source_.TotalBytes(); }

  // A plain blob's digest is its tar's.
  void Decided(codec::Compression compression) { hash_ = hash_ && compression != codec::Compression::kNone; }
  hash::Sha256Digest Finish() { return sha_.Finish(); }

 private:
  ByteSource& source_;
  bool hash_;
  BlockHash sha_{"ls-hash-blob"};
};

// The decoding thread's work: from the source to full blocks.
class DecodeStage {
 public:
  DecodeStage(ByteSource& source, const IngestRequest& request, Progress& progress, const CancelToken& cancel,
              BlockQueue& queue)
      : blob_(source, request.hash_blob), request_(request), progress_(progress), cancel_(cancel), queue_(queue) {}

  void Run() {
    auto done = Pump();
    queue_.End(done.ok() ? std::nullopt : std::optional(done.error()));
  }
  void Fill(IngestResult& result) {
    result.diff_id = diff_id_;
    result.tar_size = tar_size_;
    result.compression = compression_;
    result.blob_size = blob_size_;
    if (!request_.hash_blob) return;
    result.blob_digest = compression_ == codec::Compression::kNone ? diff_id_ : blob_.Finish();
  }

 private:
  Result<void> Pump() {
    LS_ASSIGN(const std::unique_ptr<codec::Decoder> decoder, codec::Decoder::Open(blob_, {request_.limits.max_window}));
    compression_ = decoder->compression();
    blob_.Decided(compression_);
    BlockHash hash("ls-hash");
    while (true) {
      BlockQueue::Ref block = queue_.Acquire();
      if (block == nullptr) return {};  // the other side has failed and says why
      bool ended = false;
      while (!ended && !block->room().empty()) {
        if (cancel_.cancelled()) return DataError(Fault::kCancelled, "");
        LS_ASSIGN(const size_t count, decoder->Read(block->room()));
        ended = count == 0;
        block->used += count;
        progress_.bytes_read.store(decoder->bytes_in(), std::memory_order_relaxed);
      }
      tar_size_ += block->used;
      LS_TRY(CheckLimits(decoder->bytes_in()));
      if (block->used > 0) {
        queue_.Push(block);
        LS_TRY(hash.Add(std::move(block)));
      }
      if (!ended) continue;
      blob_size_ = decoder->bytes_in();
      diff_id_ = hash.Finish();
      return {};
    }
  }

  Result<void> CheckLimits(uint64_t bytes_in) const {
    if (tar_size_ > request_.limits.max_bytes) return DataError(Fault::kLimit, "maxBytes");
    if (tar_size_ > kRatioFrom &&
        static_cast<double>(tar_size_) > static_cast<double>(bytes_in) * request_.limits.max_ratio) {
      return DataError(Fault::kLimit, "maxRatio");
    }
    return {};
  }

  BlobSource blob_;
  const IngestRequest& request_;
  Progress& progress_;
  const CancelToken& cancel_;
  BlockQueue& queue_;
  hash::Sha256Digest diff_id_{};
  uint64_t tar_size_ = 0;
  uint64_t blob_size_ = 0;
  codec::Compression compression_ = codec::Compression::kNone;
};

// The tar as the reader wants it, out of the queue's blocks.
class BlockInput final : public tar::Input {
 public:
  BlockInput(BlockQueue& queue, const CancelToken& cancel) : queue_(queue), cancel_(cancel) {}
  // What was taken last lies in it.
  [[nodiscard]] const BlockQueue::Ref& block() const { return block_; }
  // So far.
  [[nodiscard]] size_t blocks() const { return blocks_; }

  Result<std::span<const uint8_t>> Take(size_t max) override {
    if (cancel_.cancelled()) return DataError(Fault::kCancelled, "");
    if (left_.empty()) {
      block_.reset();
      LS_ASSIGN(block_, queue_.Pop());
      if (block_ == nullptr) return std::span<const uint8_t>();
      left_ = block_->data();
      blocks_++;
    }
    const std::span<const uint8_t> bytes = left_.first(std::min(max, left_.size()));
    left_ = left_.subspan(bytes.size());
    return bytes;
  }

 private:
  BlockQueue& queue_;
  const CancelToken& cancel_;
  BlockQueue::Ref block_;
  std::span<const uint8_t> left_;
  size_t blocks_ = 0;
};

// The applying thread's work: from blocks to the tree and the record.
class ApplyStage {
 public:
  ApplyStage(const IngestRequest& request, Progress& progress, const CancelToken& cancel, BlockQueue& queue)
      : request_(request),
        progress_(progress),
        cancel_(cancel),
        input_(queue, cancel),
        reader_(input_,
                {request.limits.max_header_bytes, {request.limits.max_xattrs, request.limits.max_xattr_bytes}}) {}

  Result<void> Run() {
    LS_ASSIGN(applier_, Applier::Open(request_));
    if (!request_.tar_split_path.empty()) {
      LS_ASSIGN(record_, tarsplit::Writer::Open(request_.tar_split_path));
    }
    tar::Entry entry;
    while (true) {
      if (cancel_.cancelled()) return DataError(Fault::kCancelled, "");
      LS_TRY(CheckFreeSpace());
      LS_ASSIGN(const tar::Reader::Step step, reader_.Next(entry));
      raw_ += reader_.TakeRaw();
      if (step == tar::Reader::Step::kEnd) break;
      if (step == tar::Reader::Step::kEntry) LS_TRY(OneEntry(entry));
      if (input_.blocks() > std::max<size_t>(blocks_, 1)) {
        blocks_ = input_.blocks();
        LS_TRY(applier_->NextBlock());
      }
      if (raw_.size() >= kRawBytes) LS_TRY(FlushRaw());
      progress_.bytes_unpacked.store(reader_.offset(), std::memory_order_relaxed);
    }
    LS_TRY(FlushRaw());
    while (true) {
      LS_ASSIGN(const std::span<const uint8_t> bytes, reader_.ReadTrailing(SIZE_MAX));
      if (bytes.empty()) break;
      if (record_ != nullptr) LS_TRY(record_->AddSegment({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
    }
    progress_.bytes_unpacked.store(reader_.offset(), std::memory_order_relaxed);
    LS_TRY(applier_->Finish(cancel_));
    if (record_ != nullptr) LS_TRY(record_->Close());
    return {};
  }

  // On the same thread, when the digest is known.
  Result<void> Finish(IngestResult& result) {
    result.entries = entries_;
    result.ignored_xattrs = applier_->ignored_xattrs();
    result.ignored_owners = applier_->ignored_owners();
    result.size = applier_->size();
    if (!applier_->replaced().used()) return {};
    auto done = FinishReplaced(result);
    if (!done.ok() && record_ != nullptr) (void)unlink(request_.tar_split_path.c_str());
    return done;
  }

 private:
  static constexpr size_t kRawBytes = size_t{1} << 20;

  // Entries hid others: what the sums and the record say of those is put right.
  Result<void> FinishReplaced(IngestResult& result) {
    LS_ASSIGN(result.size, tree::TreeSize(applier_->root(), applier_->made(), cancel_));
    if (record_ == nullptr) return {};
    return RewriteTarSplit(request_.tar_split_path, result.diff_id, *applier_, request_.force_component_walk,
                           request_.limits.max_kept_bytes, cancel_);
  }

  Result<void> OneEntry(const tar::Entry& entry) {
    progress_.entries.store(++entries_, std::memory_order_relaxed);
    if (entries_ > request_.limits.max_entries) return DataError(Fault::kLimit, "maxEntries", {}, reader_.offset());
    auto done = Unpack(entry);
    // A path of a thousand missing parents is one entry and a thousand inodes.
    if (done.ok() && entries_ + applier_->implied() > request_.limits.max_entries) {
      done = DataError(Fault::kLimit, "maxEntries");
    }
    if (done.ok() || done.error().fault == Fault::kSystem) return done;
    if (done.error().path.empty() && done.error().fault != Fault::kCancelled) done.error().path = entry.name;
    if (done.error().offset == 0) done.error().offset = reader_.offset();
    return done;
  }

  Result<void> Unpack(const tar::Entry& entry) {
    LS_ASSIGN(const bool named, applier_->Begin(entry));
    if (named) LS_TRY(FlushRaw());
    uint64_t crc = 0;
    while (reader_.data_left() > 0) {
      LS_TRY(CheckFreeSpace());
      LS_ASSIGN(const std::span<const uint8_t> bytes, reader_.ReadData(SIZE_MAX));
      LS_TRY(applier_->Write(bytes, input_.block()));
      if (record_ == nullptr) continue;
      if (named) {
        crc = hash::Crc64Iso(crc, bytes);
      } else {
        LS_TRY(KeepInRecord(bytes));
      }
    }
    LS_TRY(applier_->End(entry));
    if (!named || record_ == nullptr) return {};
    return record_->AddFile(entry.name, entry.size, entry.size > 0 ? std::optional(crc) : std::nullopt);
  }

  Result<void> KeepInRecord(std::span<const uint8_t> bytes) {
    kept_ += bytes.size();
    if (kept_ > request_.limits.max_kept_bytes) return DataError(Fault::kLimit, "maxKeptBytes");
    raw_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return raw_.size() >= kRawBytes ? FlushRaw() : Result<void>();
  }

  Result<void> FlushRaw() {
    if (record_ != nullptr && !raw_.empty()) LS_TRY(record_->AddSegment(raw_));
    raw_.clear();
    return {};
  }

  Result<void> CheckFreeSpace() {
    if (request_.limits.min_free_bytes == 0 || reader_.offset() < next_check_) return {};
    next_check_ = reader_.offset() + kFreeSpaceStep;
    struct statfs info;
    if (fstatfs(applier_->root(), &info) != 0) return SysError("fstatfs", request_.directory);
    const uint64_t free = static_cast<uint64_t>(info.f_bavail) * static_cast<uint64_t>(info.f_bsize);
    if (free < request_.limits.min_free_bytes) return DataError(Fault::kLimit, "minFreeBytes");
    return {};
  }

  const IngestRequest& request_;
  Progress& progress_;
  const CancelToken& cancel_;
  BlockInput input_;
  tar::Reader reader_;
  std::unique_ptr<Applier> applier_;
  std::unique_ptr<tarsplit::Writer> record_;
  std::string raw_;
  size_t blocks_ = 0;
  uint64_t entries_ = 0;
  uint64_t kept_ = 0;
  uint64_t next_check_ = 0;
};

}  // namespace

Result<IngestResult> Ingest(ByteSource& source, const IngestRequest& request, Progress& progress,
                            const CancelToken& cancel) {
  BlockQueue queue;
  DecodeStage decode(source, request, progress, cancel, queue);
  LS_ASSIGN(sys::Thread decoder, sys::Thread::Start([&] { decode.Run(); }, {.name = "ls-decode"}));
  IngestResult result;
  Result<void> outcome;
  const auto work = [&] {
    ApplyStage apply(request, progress, cancel, queue);
    outcome = apply.Run();
    if (!outcome.ok()) queue.ConsumerGone();
    decoder.Join();
    if (!outcome.ok()) return;
    decode.Fill(result);
    outcome = apply.Finish(result);
  };
  auto applier = sys::Thread::Start(work, {.name = "ls-apply", .private_fs = true});
  if (!applier.ok()) {
    queue.ConsumerGone();
    decoder.Join();
    return applier.error();
  }
  applier->Join();
  if (!outcome.ok()) return outcome.error();
  return result;
}

Result<HashResult> HashSource(ByteSource& source, const codec::DecoderLimits& limits, const CancelToken& cancel) {
  HashResult result;
  BlobSource blob(source, true);
  LS_ASSIGN(const std::unique_ptr<codec::Decoder> decoder, codec::Decoder::Open(blob, limits));
  result.compression = decoder->compression();
  blob.Decided(result.compression);
  BlockQueue blocks;
  BlockHash sha("ls-hash");
  std::optional<Error> failure;
  for (bool ended = false; !ended && !failure.has_value();) {
    BlockQueue::Ref block = blocks.Acquire();
    while (!ended && !failure.has_value() && !block->room().empty()) {
      auto count = cancel.cancelled() ? Result<size_t>(DataError(Fault::kCancelled, "")) : decoder->Read(block->room());
      if (!count.ok()) {
        failure = count.error();
        break;
      }
      ended = *count == 0;
      block->used += *count;
    }
    result.tar_size += block->used;
    LS_TRY(sha.Add(std::move(block)));
  }
  if (failure.has_value()) return *failure;
  result.size = decoder->bytes_in();
  result.diff_id = sha.Finish();
  result.digest = result.compression == codec::Compression::kNone ? result.diff_id : blob.Finish();
  return result;
}

}  // namespace layerstore::unpack
