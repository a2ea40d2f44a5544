#include "unpack/tar_split_rewrite.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <unordered_set>
#include <vector>

#include "codec/decoder.h"
#include "hash/crc64.h"
#include "sys/open.h"
#include "tarsplit/reader.h"
#include "tarsplit/writer.h"

namespace layerstore::unpack {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;
// Names that are told apart; 64 bits each, so memory stays small. Beyond, entries without content lose their record
// line, which nobody needs to give the tar back.
constexpr size_t kMaxNames = size_t{1} << 20;

class FileSource final : public ByteSource {
 public:
  FileSource(int fd, const std::string& path) : fd_(fd), path_(path) {}
  Result<size_t> Read(std::span<uint8_t> into) override {
    const ssize_t count = read(fd_, into.data(), into.size());
    if (count < 0) return SysError("read", path_);
    return static_cast<size_t>(count);
  }
  [[nodiscard]] int fd() const override { return fd_; }

 private:
  int fd_;
  const std::string& path_;
};

uint64_t HashName(const std::string& name) {
  return hash::Crc64Iso(0, {reinterpret_cast<const uint8_t*>(name.data()), name.size()});
}

class Rewriter {
 public:
  Rewriter(tarsplit::Writer& writer, Applier& applier, bool component_walk, uint64_t max_kept,
           const CancelToken& cancel)
      : writer_(writer),
        applier_(applier),
        parents_(applier.root(), component_walk, nullptr),
        max_kept_(max_kept),
        cancel_(cancel),
        buffer_(kReadBytes) {}

  Result<void> Add(const tarsplit::Entry& entry) {
    if (cancel_.cancelled()) return DataError(Fault::kCancelled, "");
    if (entry.type == tarsplit::Entry::Type::kSegment) {
      sha_.Update(entry.segment);
      return writer_.AddSegment({reinterpret_cast<const char*>(entry.segment.data()), entry.segment.size()});
    }
    std::string clean;
    if (!tarsplit::CleanEntryName(entry.name, clean)) clean = entry.name;
    if (entry.size == 0) {
      return IsThere(clean) && IsNew(clean, false) ? writer_.AddFile(entry.name, 0, std::nullopt) : Result<void>();
    }
    LS_ASSIGN(const UniqueFd moved, applier_.replaced().Open(entry.size, entry.crc));
    // What was moved may be in the tree as well: then the first line of that name stays, in either engine.
    if (moved.valid() && !(HasInTree(clean, entry) && IsNew(clean, true))) return Keep(moved.get());
    LS_ASSIGN(const UniqueFd file, OpenInTree(clean));
    if (!moved.valid() && !IsNew(clean, true)) return Keep(file.get());
    uint64_t crc = 0;
    uint64_t size = 0;
    LS_TRY(Read(file.get(), Use::kHash, size, crc));
    if (size != entry.size || crc != entry.crc) return DataError(Fault::kCorrupt, "content moved away", entry.name);
    return writer_.AddFile(entry.name, entry.size, entry.crc);
  }
  hash::Sha256Digest Finish() { return sha_.Finish(); }

 private:
  bool IsNew(const std::string& clean, bool content) {
    const uint64_t hash = HashName(clean);
    if (names_.contains(hash)) return false;
    if (names_.size() < kMaxNames) {
      names_.insert(hash);
      return true;
    }
    return content;
  }

  // Whether the name leads to something at the end, and not through a link: that would be another entry's. A whiteout's
  // own name never leads to anything.
  bool IsThere(const std::string& clean) {
    const std::string base(PathBase(clean));
    if (base.starts_with(tree::kWhiteoutPrefix)) return true;
    const Result<Parent> parent = parents_.Find(PathParent(clean));
    struct stat info;
    return parent.ok() && !parent->aliased && fstatat(parent->fd, base.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
  }

  Result<UniqueFd> OpenInTree(const std::string& clean) {
    LS_ASSIGN(const Parent parent, parents_.Find(PathParent(clean)));
    return sys::OpenAt(parent.fd, std::string(PathBase(clean)), O_RDONLY | O_NOFOLLOW);
  }

  // Whether the name leads to a file with the entry's content at the end, and not through a link. Where that cannot be
  // told the content is kept, which is right in any case. Nothing but a regular file is opened: a pipe would wait for
  // its writer.
  bool HasInTree(const std::string& clean, const tarsplit::Entry& entry) {
    const Result<Parent> parent = parents_.Find(PathParent(clean));
    if (!parent || parent->aliased) return false;
    const std::string base(PathBase(clean));
    struct stat info;
    if (fstatat(parent->fd, base.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return false;
    if (!S_ISREG(info.st_mode) || static_cast<uint64_t>(info.st_size) != entry.size) return false;
    const Result<UniqueFd> file = sys::OpenAt(parent->fd, base, O_RDONLY | O_NOFOLLOW);
    if (!file) return false;
    uint64_t size = 0;
    uint64_t crc = 0;
    return Read(file->get(), Use::kLook, size, crc) && size == entry.size && crc == entry.crc;
  }

  // The content becomes part of the record.
  Result<void> Keep(int file) {
    uint64_t size = 0;
    uint64_t crc = 0;
    return Read(file, Use::kKeep, size, crc);
  }

  enum class Use : uint8_t { kLook, kHash, kKeep };

  Result<void> Read(int file, Use use, uint64_t& size, uint64_t& crc) {
    while (true) {
      if (cancel_.cancelled()) return DataError(Fault::kCancelled, "");
      const ssize_t count = read(file, buffer_.data(), buffer_.size());
      if (count < 0) return SysError("read");
      if (count == 0) return {};
      const std::span<const uint8_t> bytes = std::span(buffer_).first(static_cast<size_t>(count));
      size += bytes.size();
      if (use != Use::kLook) sha_.Update(bytes);
      if (use == Use::kKeep) {
        kept_ += bytes.size();
        if (kept_ > max_kept_) return DataError(Fault::kLimit, "maxKeptBytes");
        LS_TRY(writer_.AddSegment({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
      } else {
        crc = hash::Crc64Iso(crc, bytes);
      }
    }
  }

  tarsplit::Writer& writer_;
  Applier& applier_;
  ParentCache parents_;
  uint64_t max_kept_;
  const CancelToken& cancel_;
  std::vector<uint8_t> buffer_;
  std::unordered_set<uint64_t> names_;
  uint64_t kept_ = 0;
  hash::Sha256 sha_;
};

}  // namespace

Result<void> RewriteTarSplit(const std::string& path, const hash::Sha256Digest& diff_id, Applier& applier,
                             bool component_walk, uint64_t max_kept_bytes, const CancelToken& cancel) {
  LS_TRY(applier.replaced().Index(applier.made(), max_kept_bytes, cancel));
  const std::string next = path + ".new";
  LS_ASSIGN(const UniqueFd file, sys::OpenPath(path, O_RDONLY | O_NOFOLLOW));
  FileSource source(file.get(), path);
  LS_ASSIGN(const std::unique_ptr<codec::Decoder> decoder, codec::Decoder::Open(source, {}));
  tarsplit::Reader reader(*decoder);
  LS_ASSIGN(const std::unique_ptr<tarsplit::Writer> writer, tarsplit::Writer::Open(next));
  Rewriter rewriter(*writer, applier, component_walk, max_kept_bytes, cancel);
  tarsplit::Entry entry;
  while (true) {
    LS_ASSIGN(const bool more, reader.Next(entry));
    if (!more) break;
    LS_TRY(rewriter.Add(entry));
  }
  if (rewriter.Finish() != diff_id) return DataError(Fault::kCorrupt, "the record does not give the tar back", path);
  LS_TRY(writer->Close());
  if (rename(next.c_str(), path.c_str()) != 0) {
    Error error = SysError("rename", next, path);
    (void)unlink(next.c_str());
    return error;
  }
  return {};
}

}  // namespace layerstore::unpack
