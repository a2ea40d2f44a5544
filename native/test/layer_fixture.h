// A scratch directory, ingest into it, and the tar given back from record and tree by a small assembler of its own, so
// that a mistake shared by the real writer and the real assembler cannot hide.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "codec/decoder.h"
#include "hash/crc64.h"
#include "tarsplit/reader.h"
#include "test/check.h"
#include "unpack/ingest.h"

namespace layerstore::test {

inline std::string ReadFile(const std::string& path) {
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return "<" + path + " cannot be opened>";
  char buffer[65536];
  for (ssize_t count = 0; (count = read(fd, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(count));
  close(fd);
  return text;
}

class Scratch {
 public:
  Scratch() {
    const char* base = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): nothing sets it
    std::string name = std::string(base == nullptr ? "/var/tmp" : base) + "/layerstore-test-XXXXXX";
    path_ = mkdtemp(name.data());
    Fresh();
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // The next layer: an empty directory and no record.
  void Fresh() {
    std::filesystem::remove_all(path_ + "/home");
    std::filesystem::create_directories(tree());
    chmod(tree().c_str(), 0755);
  }
  [[nodiscard]] std::string path() const { return path_; }
  [[nodiscard]] std::string home() const { return path_ + "/home"; }
  [[nodiscard]] std::string tree() const { return path_ + "/home/diff"; }
  [[nodiscard]] std::string record() const { return path_ + "/home/tar-split.json.gz"; }

 private:
  std::string path_;
};

inline unpack::IngestRequest RequestFor(const Scratch& scratch) {
  unpack::IngestRequest request;
  request.directory = scratch.tree();
  request.tar_split_path = scratch.record();
  return request;
}

inline Result<unpack::IngestResult> RunIngest(const std::string& tar, const unpack::IngestRequest& request,
                                              size_t step = SIZE_MAX) {
  MemorySource source(tar, step);
  Progress progress;
  CancelToken cancel;
  return unpack::Ingest(source, request, progress, cancel);
}

// Record lines, and the tar that record and tree give together.
struct GivenBack {
  std::string tar;
  std::vector<std::string> names;  // of type-1 records
  std::string problem;
};

inline GivenBack GiveBack(const Scratch& scratch) {
  GivenBack back;
  const std::string gz = ReadFile(scratch.record());
  MemorySource source(gz);
  auto decoder = codec::Decoder::Open(source, {});
  if (!decoder.ok()) {
    back.problem = "record: " + Describe(decoder.error());
    return back;
  }
  tarsplit::Reader reader(**decoder);
  tarsplit::Entry entry;
  while (true) {
    auto more = reader.Next(entry);
    if (!more.ok()) back.problem = "record: " + Describe(more.error());
    if (!more.ok() || !*more) break;
    if (entry.type == tarsplit::Entry::Type::kSegment) {
      back.tar.append(entry.segment.begin(), entry.segment.end());
      continue;
    }
    back.names.push_back(entry.name);
    if (entry.size == 0) continue;
    const std::string content = ReadFile(scratch.tree() + "/" + entry.name);
    if (content.size() != entry.size || hash::Crc64Iso(0, Bytes(content)) != entry.crc)
      back.problem = "content of " + entry.name;
    back.tar += content;
  }
  return back;
}

// Nothing but the tree and, where it was good, the record.
inline bool Tidy(const Scratch& scratch, bool record) {
  size_t count = 0;
  for (const auto& item : std::filesystem::directory_iterator(scratch.home())) {
    const std::string name = item.path().filename();
    if (name != "diff" && !(record && name == "tar-split.json.gz")) return false;
    count++;
  }
  return count == (record ? 2U : 1U);
}

inline size_t OpenDescriptors() {
  size_t count = 0;
  for (const auto& item : std::filesystem::directory_iterator("/proc/self/fd")) count += item.path().empty() ? 0 : 1;
  return count;
}

inline size_t Threads() {
  size_t count = 0;
  for (const auto& item : std::filesystem::directory_iterator("/proc/self/task")) count += item.path().empty() ? 0 : 1;
  return count;
}

inline std::string Xattr(const std::string& path, const char* name) {
  char value[256];
  const ssize_t size = lgetxattr(path.c_str(), name, value, sizeof value);
  return size < 0 ? "<none>" : std::string(value, static_cast<size_t>(size));
}

inline struct stat Stat(const std::string& path) {
  struct stat info = {};
  if (lstat(path.c_str(), &info) != 0) info.st_mode = 0;
  return info;
}

}  // namespace layerstore::test
