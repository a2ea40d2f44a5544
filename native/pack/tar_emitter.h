// TarEmitter: turns files into the entries of a tar, in the form of docs/on-disk-format.md, and keeps the tar-split
// record of what it writes where one is wanted. One thread at a time; borrows the sink and the record.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>

#include "hash/hashed_sink.h"
#include "sys/control.h"
#include "tar/entry.h"
#include "tarsplit/writer.h"

namespace layerstore::pack {

// A file as it is to be written: attributes, and where its xattrs, link target and data come from.
struct TarSubject {
  std::string path;  // without slashes at either end
  struct stat st {};
  int directory = -1;  // lent, with the name inside it
  std::string name;
  int data = -1;  // lent; of a regular file with data
};

class TarEmitter {
 public:
  // `record` may be null.
  TarEmitter(hash::HashedSink& out, tarsplit::Writer* record, bool sparse)
      : out_(out), record_(record), sparse_(sparse) {}

  // Anything but a socket, which has no form in a tar. Fault::kNotSupported for a name that would read as a whiteout.
  Result<void> Entry(const TarSubject& subject, const CancelToken& cancel);
  Result<void> HardLink(const std::string& path, const struct stat& st, const std::string& target);
  Result<void> Whiteout(const std::string& path);
  Result<void> Opaque(const std::string& path, const struct stat& st);
  // The end of the tar.
  Result<void> Finish();

  [[nodiscard]] uint64_t entries() const { return entries_; }
  // Docker's size of what was written.
  [[nodiscard]] uint64_t size() const { return size_; }

 private:
  Result<void> Header(const tar::Entry& entry);
  Result<void> Data(const TarSubject& subject, const tar::Entry& entry, uint64_t& crc, const CancelToken& cancel);
  Result<void> Region(const TarSubject& subject, uint64_t offset, uint64_t length, uint64_t& crc,
                      const CancelToken& cancel);
  Result<void> Raw(std::string_view bytes);
  Result<void> Record(const tar::Entry& entry, uint64_t crc);

  hash::HashedSink& out_;
  tarsplit::Writer* record_;
  bool sparse_;
  std::string raw_;  // headers and padding since the last record of a file
  std::string header_;
  uint64_t entries_ = 0;
  uint64_t size_ = 0;
};

}  // namespace layerstore::pack
