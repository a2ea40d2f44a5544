// TarView: a layer's record read as the tar it stands for, without the files' data: headers come from the record's
// segments, data as zeros. So the record's entries and the tar's headers are seen side by side. One thread at a time.
#pragma once

#include <memory>
#include <string>

#include "tar/reader.h"
#include "tarsplit/file.h"

namespace layerstore::tarsplit {

// What the segments and files of the record are given to as they are passed, in order: to hash them, or to do nothing.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual Result<void> Segment(std::span<const uint8_t> bytes) = 0;
};

class TarView final : public tar::Input {
 public:
  // `listener` may be null.
  static Result<std::unique_ptr<TarView>> Open(const std::string& path, Listener* listener);

  struct Item {
    tar::Entry header;
    bool recorded = false;  // the data, if any, is a file of the tree; else all of it is in the record
    Entry file;             // where `recorded`
  };
  // The next entry of the tar; false at its end.
  Result<bool> Next(Item& item);

  Result<std::span<const uint8_t>> Take(size_t max) override;

 private:
  explicit TarView(Listener* listener);
  Result<bool> Load();

  std::unique_ptr<File> record_;
  Listener* listener_;
  std::unique_ptr<tar::Reader> reader_;
  Entry entry_;          // the record's entry in use
  bool loaded_ = false;  // entry_ is valid and not used up
  size_t used_ = 0;      // bytes of its segment
  uint64_t zeros_ = 0;   // data of the file in use, still to be given
};

}  // namespace layerstore::tarsplit
