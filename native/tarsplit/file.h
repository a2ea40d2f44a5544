// A layer's tar-split record on disk, and what is said of a file that does not match it.
#pragma once

#include <memory>
#include <string>

#include "codec/decoder.h"
#include "sys/fd_io.h"
#include "tarsplit/reader.h"

namespace layerstore::tarsplit {

// File: a tar-split file on disk, decompressed (Docker's are gzip; a plain one is read too). Owns the
// descriptor; one thread at a time.
class File {
 public:
  static Result<std::unique_ptr<File>> Open(const std::string& path);
  // As Reader::Next; damage of the compression is Fault::kCorrupt too.
  Result<bool> Next(Entry& entry);

 private:
  File() = default;

  std::unique_ptr<sys::FdSource> source_;
  std::string path_;
  std::unique_ptr<codec::Decoder> decoder_;
  std::unique_ptr<Reader> reader_;
};

// "crc64 of PATH is …, found …" as an Error.
Error ChecksumError(const Entry& entry, uint64_t found);
std::string FormatCrc(uint64_t crc);

}  // namespace layerstore::tarsplit
