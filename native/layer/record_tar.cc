#include "layer/record_tar.h"

#include <algorithm>
#include <array>
#include <utility>

namespace layerstore {
namespace {

constexpr std::array<uint8_t, 65536> kZeros{};

// What a registration may have been allowed at most: the record was within somebody's limits when it was made.
constexpr uint64_t kMaxHeaderBytes = uint64_t{16} << 20;

}  // namespace

RecordTar::RecordTar(RecordListener* listener) : listener_(listener) {
  TarReaderLimits limits{};
  limits.max_header_bytes = kMaxHeaderBytes;
  limits.xattrs = XattrLimits{kMaxHeaderBytes, kMaxHeaderBytes};
  reader_ = std::make_unique<TarReader>(*this, limits);
}

Result<std::unique_ptr<RecordTar>> RecordTar::Open(const std::string& path, RecordListener* listener) {
  std::unique_ptr<RecordTar> tar(new RecordTar(listener));
  LS_ASSIGN(tar->record_, TarSplitFile::Open(path));
  return tar;
}

Result<bool> RecordTar::Load() {
  if (loaded_) return true;
  LS_ASSIGN(loaded_, record_->Next(entry_));
  used_ = 0;
  if (loaded_ && entry_.type == SplitEntry::Type::kSegment && listener_ != nullptr)
    LS_TRY(listener_->Segment(entry_.segment));
  return loaded_;
}

Result<std::span<const uint8_t>> RecordTar::Take(size_t max) {
  for (;;) {
    if (zeros_ > 0) {
      const size_t count = static_cast<size_t>(std::min<uint64_t>({zeros_, max, kZeros.size()}));
      zeros_ -= count;
      return std::span<const uint8_t>(kZeros.data(), count);
    }
    LS_ASSIGN(const bool more, Load());
    if (!more) return std::span<const uint8_t>();
    if (entry_.type == SplitEntry::Type::kFile) {
      zeros_ = entry_.size;
      loaded_ = false;
      continue;
    }
    const size_t count = std::min(max, entry_.segment.size() - used_);
    if (count == 0) {
      loaded_ = false;
      continue;
    }
    const std::span<const uint8_t> bytes(entry_.segment.data() + used_, count);
    used_ += count;
    return bytes;
  }
}

Result<bool> RecordTar::Next(Item& item) {
  for (;;) {
    // Data that nobody asked for would count as header bytes.
    while (reader_->data_left() > 0) LS_TRY(reader_->ReadData(SIZE_MAX));
    item.header = {};
    LS_ASSIGN(const TarReader::Step step, reader_->Next(item.header));
    (void)reader_->TakeRaw();
    if (step == TarReader::Step::kEnd) {
      // What is left says nothing about files, but belongs to the tar.
      for (;;) {
        LS_ASSIGN(const std::span<const uint8_t> rest, reader_->ReadTrailing(kZeros.size()));
        if (rest.empty()) return false;
      }
    }
    if (step == TarReader::Step::kGlobal) continue;
    // The header ends its segment where a file's record follows.
    item.recorded = false;
    const bool at_end = !loaded_ || (entry_.type == SplitEntry::Type::kSegment && used_ == entry_.segment.size());
    if (!at_end) return true;
    loaded_ = false;
    LS_ASSIGN(const bool more, Load());
    if (more && entry_.type == SplitEntry::Type::kFile) {
      item.recorded = true;
      item.file = entry_;
      zeros_ = entry_.size;
      loaded_ = false;
    }
    return true;
  }
}

}  // namespace layerstore
