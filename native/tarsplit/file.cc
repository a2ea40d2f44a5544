#include "tarsplit/file.h"

#include <cstdio>
#include <utility>

namespace layerstore::tarsplit {

Result<std::unique_ptr<File>> File::Open(const std::string& path) {
  std::unique_ptr<File> file(new File());
  LS_ASSIGN(file->source_, sys::FdSource::Open(path));
  file->path_ = path;
  LS_ASSIGN(file->decoder_, codec::Decoder::Open(*file->source_, {}));
  file->reader_ = std::make_unique<Reader>(*file->decoder_);
  return file;
}

Result<bool> File::Next(Entry& entry) {
  Result<bool> more = reader_->Next(entry);
  if (more) return more;
  Error error = std::move(more.error());
  if (error.fault == Fault::kBadCompression) {
    error.fault = Fault::kCorrupt;
    error.detail = "tar-split record: " + error.detail;
  }
  if (error.path.empty()) error.path = path_;
  return error;
}

std::string FormatCrc(uint64_t crc) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(crc));
  return text;
}

Error ChecksumError(const Entry& entry, uint64_t found) {
  return DataError(Fault::kCorrupt, "crc64 " + FormatCrc(entry.crc) + ", found " + FormatCrc(found), entry.name,
                   entry.offset);
}

}  // namespace layerstore::tarsplit
