// Reading a stored layer back: its tar-split record, and the files that the record names. One thread at a time each.
#pragma once

#include <memory>
#include <string>

#include "codec/decoder.h"
#include "layer/files.h"
#include "layer/stack.h"
#include "sys/files.h"
#include "tar/split_reader.h"

namespace layerstore {

// TarSplitFile: a tar-split file on disk, decompressed (Docker's are gzip; a plain one is read too). Owns the
// descriptor.
class TarSplitFile {
 public:
  static Result<std::unique_ptr<TarSplitFile>> Open(const std::string& path);
  // As SplitReader::Next; damage of the compression is Fault::kCorrupt too.
  Result<bool> Next(SplitEntry& entry);

 private:
  TarSplitFile() = default;

  std::unique_ptr<FdSource> source_;
  std::string path_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<SplitReader> reader_;
};

// LayerFiles: opens files below a layer's directory and nowhere else: links resolve inside it, the last component is
// never followed. Cheapest for entries in the order of a walk, however deep.
class LayerFiles {
 public:
  static Result<std::unique_ptr<LayerFiles>> Open(const std::string& directory);
  // The regular file of a record's entry, of exactly the recorded size; anything else is Fault::kCorrupt.
  Result<UniqueFd> OpenRecorded(const SplitEntry& entry);
  // The directory that holds the entry, and its name there; Fault::kCorrupt where there is none. The descriptor is lent
  // until the next call.
  struct Place {
    int directory = -1;
    std::string name;
    bool linked = false;  // a link leads to the directory
  };
  Result<Place> Find(const SplitEntry& entry);

 private:
  LayerFiles() = default;
  Result<int> OpenParent(std::string_view path);

  UniqueFd root_;
  std::unique_ptr<Stack> stack_;  // of the one directory
  LayerDirRef near_;              // the last parent that no link led to
  UniqueFd linked_;               // the last one that a link led to
  std::string linked_path_;
  std::string clean_;
};

// A directory below `root`; links on the way resolve as if `root` were the root of everything. Where the kernel lacks
// openat2 (or a test says so) the path is walked component by component.
Result<UniqueFd> OpenInLayer(int root, const std::string& path, bool force_component_walk = false);

// "crc64 of PATH is …, found …" as an Error.
Error ChecksumError(const SplitEntry& entry, uint64_t found);
std::string FormatCrc(uint64_t crc);

}  // namespace layerstore
