// TarEmitter: turns files into the entries of a tar, in the form of docs/on-disk-format.md, and keeps the tar-split
// record of what it writes where one is wanted. One thread at a time; borrows the sink and the record.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <unordered_map>

#include "layer/hashed_sink.h"
#include "layer/record_writer.h"
#include "sys/cancel.h"
#include "sys/unique_fd.h"
#include "tar/entry.h"

namespace layerstore {

// The first path of each inode that has more than one link.
class LinkTable {
 public:
  // The path given with the inode's first name; null where this is the first, or the only one.
  const std::string* FirstPath(const struct stat& st, const std::string& path);

 private:
  struct Inode {
    uint64_t device, number;
    friend bool operator==(const Inode&, const Inode&) = default;
  };
  struct Hash {
    size_t operator()(const Inode& inode) const { return inode.number * 0x9E3779B97F4A7C15U ^ inode.device; }
  };
  std::unordered_map<Inode, std::string, Hash> paths_;
};

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
  TarEmitter(HashedSink& out, RecordWriter* record, bool sparse) : out_(out), record_(record), sparse_(sparse) {}

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
  Result<void> Header(const TarEntry& entry);
  Result<void> Data(const TarSubject& subject, const TarEntry& entry, uint64_t& crc, const CancelToken& cancel);
  Result<void> Region(const TarSubject& subject, uint64_t offset, uint64_t length, uint64_t& crc,
                      const CancelToken& cancel);
  Result<void> Raw(std::string_view bytes);
  Result<void> Record(const TarEntry& entry, uint64_t crc);

  HashedSink& out_;
  RecordWriter* record_;
  bool sparse_;
  std::string raw_;  // headers and padding since the last record of a file
  std::string header_;
  uint64_t entries_ = 0;
  uint64_t size_ = 0;
};

// Whether the last component of `path` would be read as a whiteout.
bool IsWhiteoutName(std::string_view path);
// "d/x" -> "d/.wh.x"
std::string WhiteoutPath(const std::string& path);

}  // namespace layerstore
