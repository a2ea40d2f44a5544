#include "tarsplit/tar_view.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tarsplit/file.h"

namespace layerstore::tarsplit {
namespace {

constexpr std::array<uint8_t, 65536> kZeros{};

// What a registration may have been allowed at most: the record was within somebody's limits when it was made.
constexpr uint64_t kMaxHeaderBytes = uint64_t{16} << 20;

}  // namespace

TarView::TarView(Listener* listener) : listener_(listener) {
  tar::ReaderLimits limits{};
  limits.max_header_bytes = kMaxHeaderBytes;
  limits.xattrs = tar::XattrLimits{kMaxHeaderBytes, kMaxHeaderBytes};
  reader_ = std::make_unique<tar::Reader>(*this, limits);
}

Result<std::unique_ptr<TarView>> TarView::Open(const std::string& path, Listener* listener) {
  std::unique_ptr<TarView> tar(new TarView(listener));
  LS_ASSIGN(tar->record_, File::Open(path));
  return tar;
}

Result<bool> TarView::Load() {
  if (loaded_) return true;
  LS_ASSIGN(loaded_, record_->Next(entry_));
  used_ = 0;
  if (loaded_ && entry_.type == Entry::Type::kSegment && listener_ != nullptr)
    LS_TRY(listener_->Segment(entry_.segment));
  return loaded_;
}

Result<std::span<const uint8_t>> TarView::Take(size_t max) {
  for (;;) {
    if (zeros_ > 0) {
      const size_t count = static_cast<size_t>(std::min<uint64_t>({zeros_, max, kZeros.size()}));
      zeros_ -= count;
      return std::span<const uint8_t>(kZeros.data(), count);
    }
    LS_ASSIGN(const bool more, Load());
    if (!more) return std::span<const uint8_t>();
    if (entry_.type == Entry::Type::kFile) {
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

Result<bool> TarView::Next(Item& item) {
  for (;;) {
    // Data that nobody asked for would count as header bytes.
    while (reader_->data_left() > 0) LS_TRY(reader_->ReadData(SIZE_MAX));
    item.header = {};
    LS_ASSIGN(const tar::Reader::Step step, reader_->Next(item.header));
    (void)reader_->TakeRaw();
    if (step == tar::Reader::Step::kEnd) {
      // What is left says nothing about files, but belongs to the tar.
      for (;;) {
        LS_ASSIGN(const std::span<const uint8_t> rest, reader_->ReadTrailing(kZeros.size()));
        if (rest.empty()) return false;
      }
    }
    if (step == tar::Reader::Step::kGlobal) continue;
    // The header ends its segment where a file's record follows.
    item.recorded = false;
    const bool at_end = !loaded_ || (entry_.type == Entry::Type::kSegment && used_ == entry_.segment.size());
    if (!at_end) return true;
    loaded_ = false;
    LS_ASSIGN(const bool more, Load());
    if (more && entry_.type == Entry::Type::kFile) {
      item.recorded = true;
      item.file = entry_;
      zeros_ = entry_.size;
      loaded_ = false;
    }
    return true;
  }
}

}  // namespace layerstore::tarsplit
