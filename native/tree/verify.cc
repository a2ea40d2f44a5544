// VerifyTree: a stored layer against its record: every recorded file is read again, every header of the recorded tar is
// compared with the inode it made, and what no entry made is found. Memory is three numbers an entry.
#include "tree/verify.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <memory>
#include <string_view>
#include <unordered_set>

#include "hash/crc64.h"
#include "hash/hashed_sink.h"
#include "tarsplit/file.h"
#include "tarsplit/tar_view.h"
#include "tree/layer_reader.h"
#include "tree/tree_walk.h"
#include "tree/verify_entry.h"

namespace layerstore::tree {
namespace {

class NullSink final : public ByteSink {
 public:
  Result<void> Write(std::span<const uint8_t> /*bytes*/) override { return {}; }
};

// Sleeps so that no more than a number of bytes a second are read.
class Budget {
 public:
  explicit Budget(uint64_t bytes_per_second) : rate_(bytes_per_second) { clock_gettime(CLOCK_MONOTONIC, &start_); }

  void Spend(uint64_t bytes, const CancelToken& cancel) {
    if (rate_ == 0) return;
    spent_ += bytes;
    const double due = static_cast<double>(spent_) / static_cast<double>(rate_);
    while (!cancel.cancelled()) {
      struct timespec now {};
      clock_gettime(CLOCK_MONOTONIC, &now);
      const double passed =
          static_cast<double>(now.tv_sec - start_.tv_sec) + static_cast<double>(now.tv_nsec - start_.tv_nsec) / 1e9;
      const double wait = std::min(due - passed, 0.05);  // short, for the sake of cancellation
      if (wait <= 0) return;
      const struct timespec nap { 0, static_cast<long>(wait * 1e9) };
      nanosleep(&nap, nullptr);
    }
  }

 private:
  uint64_t rate_;
  uint64_t spent_ = 0;
  struct timespec start_ {};
};

// Gives the record's segments to the digest of the whole tar.
class SegmentHasher final : public tarsplit::Listener {
 public:
  explicit SegmentHasher(hash::HashedSink& sink) : sink_(sink) {}
  Result<void> Segment(std::span<const uint8_t> bytes) override { return sink_.Write(bytes); }

 private:
  hash::HashedSink& sink_;
};

class Verifier {
 public:
  Verifier(const VerifyRequest& request, const CancelToken& cancel)
      : request_(request), cancel_(cancel), budget_(request.bytes_per_second) {}

  Result<std::vector<TreeProblem>> Run();

 private:
  Result<void> CollectNames();
  Result<void> Compare();
  Result<void> CheckContent(const tarsplit::Entry& entry);
  Result<void> FindExtra();
  void Add(std::string path, std::string what, std::string expected, std::string found) {
    problems_.push_back({std::move(path), std::move(what), std::move(expected), std::move(found), false});
    damaged_ = true;
  }

  const VerifyRequest& request_;
  const CancelToken& cancel_;
  Budget budget_;
  std::vector<TreeProblem> problems_;
  bool damaged_ = false;  // the bytes of the tar cannot be right
  EntryNames names_;
  std::unordered_set<uint64_t> inodes_;
  std::unique_ptr<LayerReader> files_;
  std::unique_ptr<hash::HashedSink> tar_;
};

// Which names there are, and which come more than once: then the last one made the file.
Result<void> Verifier::CollectNames() {
  LS_ASSIGN(const std::unique_ptr<tarsplit::TarView> tar, tarsplit::TarView::Open(request_.tar_split_path, nullptr));
  tarsplit::TarView::Item item;
  for (;;) {
    if (cancel_.cancelled()) return Cancelled();
    LS_ASSIGN(const bool more, tar->Next(item));
    if (!more) return {};
    names_.Add(item.header.name, item.header.type, item.recorded);
  }
}

// The data of one recorded file; its bytes go into the tar's digest too.
Result<void> Verifier::CheckContent(const tarsplit::Entry& entry) {
  Result<UniqueFd> file = files_->OpenRecorded(entry);
  if (!file) {
    if (file.error().fault != Fault::kCorrupt) return file.error();
    // Type and size are compared with the header, too; what that finds is said once.
    damaged_ = true;
    if (file.error().detail.starts_with("size ")) {
      struct stat st {};
      LS_ASSIGN(const LayerReader::Place place, files_->Find(entry));
      if (fstatat(place.directory, place.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
        Add(entry.name, "size", std::to_string(entry.size), std::to_string(st.st_size));
      }
    }
    return {};
  }
  uint64_t crc = 0;
  for (uint64_t left = entry.size; left > 0;) {
    if (cancel_.cancelled()) return Cancelled();
    LS_ASSIGN(std::span<uint8_t> space, tar_->Space());
    if (space.size() > left) space = space.first(static_cast<size_t>(left));
    const Result<size_t> got = sys::ReadFull(file->get(), space, entry.name);
    if (!got && got.error().err == EIO) {
      Add(entry.name, "content", "readable", "EIO");
      return {};
    }
    if (!got) return got.error();
    if (*got < space.size()) {
      Add(entry.name, "size", std::to_string(entry.size), std::to_string(entry.size - left + *got));
      return {};
    }
    budget_.Spend(*got, cancel_);
    crc = hash::Crc64Iso(crc, space);
    LS_TRY(tar_->Commit(*got));
    left -= *got;
  }
  if (crc != entry.crc) Add(entry.name, "content", tarsplit::FormatCrc(entry.crc), tarsplit::FormatCrc(crc));
  return {};
}

Result<void> Verifier::Compare() {
  SegmentHasher hasher(*tar_);
  LS_ASSIGN(const std::unique_ptr<tarsplit::TarView> tar, tarsplit::TarView::Open(request_.tar_split_path, &hasher));
  EntryCheck check(*files_, request_.whiteouts, request_.privilege, names_, inodes_, problems_);
  tarsplit::TarView::Item item;
  for (;;) {
    if (cancel_.cancelled()) return Cancelled();
    LS_ASSIGN(const bool more, tar->Next(item));
    if (!more) {
      check.Finish();
      return {};
    }
    // Before the next segment is read: its bytes follow the file's.
    if (item.recorded && item.file.size > 0) LS_TRY(CheckContent(item.file));
    LS_TRY(check.Check(item));
  }
}

// What lies in the directory and no entry made. In a plain tree the parents' files lie there too, so nothing can be
// told.
Result<void> Verifier::FindExtra() {
  if (request_.whiteouts == Whiteouts::kApply) return {};
  return WalkTree(
      request_.directory,
      [&](const TreeStep& step) -> Result<void> {
        if (step.kind == TreeStep::Kind::kLeave || step.path.empty()) return {};
        if (inodes_.contains(step.st.st_ino) || names_.Knows(step.path)) return {};
        Add(step.path, "extra", "nothing", DescribeType(step.st.st_mode));
        return {};
      },
      cancel_);
}

Result<std::vector<TreeProblem>> Verifier::Run() {
  NullSink nowhere;
  LS_ASSIGN(tar_, hash::HashedSink::Open(nowhere));
  LS_ASSIGN(files_, LayerReader::Open(request_.directory));
  Result<void> read = CollectNames();
  if (read) read = Compare();
  if (!read) {
    const Error& error = read.error();
    const bool bad_record = error.fault == Fault::kCorrupt || error.fault == Fault::kBadTar ||
                            error.fault == Fault::kLimit || error.fault == Fault::kBadCompression;
    const bool missing = error.fault == Fault::kSystem && error.err == ENOENT && error.path == request_.tar_split_path;
    if (!bad_record && !missing) return error;
    // The record lies outside of the layer, and where is the store's business: the problem is the whole layer's.
    Add("", "record", "one that can be read", missing ? "missing" : "damaged (" + error.detail + ")");
    return std::move(problems_);
  }
  LS_TRY(FindExtra());
  LS_ASSIGN(const hash::Sha256Digest digest, tar_->Finish());
  // Where a file is damaged already the digest says nothing new.
  const bool files_good = !damaged_ || std::all_of(problems_.begin(), problems_.end(),
                                                   [](const TreeProblem& p) { return p.what == "extra"; });
  if (digest != request_.diff_id && files_good) {
    Add("", "record", "one of the tar " + hash::FormatDigest(request_.diff_id), "one of " + hash::FormatDigest(digest));
  }
  return std::move(problems_);
}

}  // namespace

Result<std::vector<TreeProblem>> VerifyTree(const VerifyRequest& request, const CancelToken& cancel) {
  return Verifier(request, cancel).Run();
}

}  // namespace layerstore::tree
