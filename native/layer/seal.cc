// Seal: an RW layer's changes become a layer's directory, and what is kept there is what is hashed and recorded: each
// file is made first (or taken over) and the tar's entry is written from what was made.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "layer/copy.h"
#include "layer/diff_stack.h"
#include "layer/files.h"
#include "layer/record_writer.h"
#include "layer/tar_emitter.h"
#include "layer/tar_source.h"
#include "layer/tree.h"
#include "layer/walk.h"
#include "sys/files.h"
#include "sys/open.h"
#include "tar/writer.h"

namespace layerstore {
namespace {

// The tar itself goes nowhere: only its digest and its record are wanted.
class NullSink final : public ByteSink {
 public:
  Result<void> Write(std::span<const uint8_t> /*bytes*/) override { return {}; }
};

Result<void> StripOverlayXattrs(int directory, const std::string& name, std::string_view but) {
  LS_ASSIGN(const std::vector<std::string> own, ListOverlayXattrs(directory, name));
  for (const std::string& xattr : own) {
    if (xattr != but) LS_TRY(RemoveXattr(directory, name, xattr));
  }
  return {};
}

Error NoFormInTar(const std::string& path) {
  return DataError(Fault::kNotSupported, "a name that begins with .wh. means a removal in a tar", path);
}

// A file that is there whole or not at all, and on disk before what follows.
Result<void> WriteDropped(const std::string& path, const std::string& content) {
  const std::string unfinished = path + ".new";
  {
    LS_ASSIGN(const UniqueFd file, OpenPath(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
    FdSink sink(file.get());
    LS_TRY(sink.Write({reinterpret_cast<const uint8_t*>(content.data()), content.size()}));
    if (fsync(file.get()) != 0) return SysError("fsync", unfinished);
  }
  if (rename(unfinished.c_str(), path.c_str()) != 0) return SysError("rename", unfinished, path);
  LS_ASSIGN(const UniqueFd directory, OpenPath(path.substr(0, path.rfind('/') + 1), O_RDONLY | O_DIRECTORY));
  if (fsync(directory.get()) != 0) return SysError("fsync", path);
  return {};
}

// What cannot be written into a tar is found before anything of a layer that is taken over is touched, and the
// whiteouts that will be removed from it are written down.
Result<void> PrepareTakeOver(const DiffStack& diff, const std::string& dropped_path, const CancelToken& cancel) {
  std::string dropped;
  LS_ASSIGN(const std::unique_ptr<TreeWalk> walk, TreeWalk::Open(*diff.stack, diff.below));
  WalkStep step;
  for (;;) {
    LS_ASSIGN(const bool more, walk->Next(step, cancel));
    if (!more) break;
    if (step.kind != WalkStep::Kind::kEntry) continue;
    if (step.node->exists()) {
      if (IsWhiteoutName(step.path)) return NoFormInTar(step.path);
      continue;
    }
    if (dropped_path.empty()) continue;
    LS_ASSIGN(const bool needed, diff.Needs(step.path));
    if (needed) continue;
    TarEntry entry;
    entry.name = WhiteoutPath(step.path);
    entry.mode = 0600;
    LS_TRY(AppendTarHeader(entry, dropped));
  }
  if (dropped.empty()) return {};
  dropped.append(kTarEndBytes, '\0');
  return WriteDropped(dropped_path, dropped);
}

// Turns the walk over an overlay-form difference into the layer's directory and the tar's entries, entry by entry.
class Sealer {
 public:
  Sealer(const DiffStack& diff, TargetTree& target, bool consume, TarEmitter& emitter, Progress& progress,
         const CancelToken& cancel)
      : diff_(diff),
        source_(*diff.stack),
        target_(target),
        consume_(consume),
        emitter_(emitter),
        progress_(progress),
        cancel_(cancel) {}

  Result<void> Step(const WalkStep& step);

 private:
  Result<void> Entry(const WalkStep& step);
  Result<void> Leave(const WalkStep& step);
  Result<void> Whiteout(const WalkStep& step, int parent, const std::string& name);
  Result<void> Link(const WalkStep& step, const std::string& first, int parent, const std::string& name);
  Result<bool> Make(const WalkStep& step, int parent, const std::string& name, struct stat& st);
  Result<void> TakeOver(const WalkStep& step, int parent, const std::string& name, struct stat& st);
  Result<void> FillMetacopy(const WalkStep& step, int parent, const std::string& name, struct stat& st);
  Result<void> Remove(int parent, const std::string& name, const std::string& path);
  // Whether the file is in the target already, being the RW layer's own.
  [[nodiscard]] bool InPlace(const StackNode& node) const { return consume_ && node.place.directory->layer == 0; }

  const DiffStack& diff_;
  Stack& source_;
  TargetTree& target_;
  bool consume_;
  TarEmitter& emitter_;
  Progress& progress_;
  const CancelToken& cancel_;
  LinkTable links_;
};

Result<void> Sealer::Remove(int parent, const std::string& name, const std::string& path) {
  if (unlinkat(parent, name.c_str(), 0) != 0 && errno != ENOENT) return SysError("unlink", path);
  return {};
}

Result<void> Sealer::Whiteout(const WalkStep& step, int parent, const std::string& name) {
  LS_ASSIGN(const bool needed, diff_.Needs(step.path));
  if (!needed) return consume_ ? Remove(parent, name, step.path) : Result<void>();
  bool there = false;
  if (consume_) {
    struct stat st {};
    there = fstatat(parent, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && IsWhiteoutDevice(st);
    if (!there) LS_TRY(Remove(parent, name, step.path));
  }
  if (!there && mknodat(parent, name.c_str(), S_IFCHR, 0) != 0) return SysError("mknod", step.path);
  return emitter_.Whiteout(step.path);
}

Result<void> Sealer::Link(const WalkStep& step, const std::string& first, int parent, const std::string& name) {
  if (!InPlace(*step.node)) {
    LS_ASSIGN(const UniqueFd here, OpenAt(parent, ".", O_PATH | O_DIRECTORY));
    LS_ASSIGN(const int there, target_.ParentOfLink(first));
    if (linkat(there, TargetTree::Name(first).c_str(), here.get(), name.c_str(), 0) != 0)
      return SysError("link", first, step.path);
  }
  return emitter_.HardLink(step.path, step.node->st, first);
}

// The file of a metacopy xattr gets its data; its times stay.
Result<void> Sealer::FillMetacopy(const WalkStep& step, int parent, const std::string& name, struct stat& st) {
  if (step.node->data.directory == nullptr)
    return DataError(Fault::kCorrupt, "its data is in no layer (metacopy)", step.path);
  LS_ASSIGN(const UniqueFd data, source_.OpenFile(step.node->data));
  struct stat from {};
  if (fstat(data.get(), &from) != 0) return SysError("fstat", step.path);
  LS_ASSIGN(const UniqueFd file, OpenAt(parent, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK));
  LS_TRY(CopyData(data.get(), file.get(), static_cast<uint64_t>(from.st_size), step.path, cancel_));
  LS_TRY(SetOwnerAndMode(parent, name, st));  // a write takes setuid bits away
  LS_TRY(SetTimes(parent, name, st));
  st.st_size = from.st_size;
  return {};
}

Result<void> Sealer::TakeOver(const WalkStep& step, int parent, const std::string& name, struct stat& st) {
  if (step.node->metacopy) LS_TRY(FillMetacopy(step, parent, name, st));
  // A directory keeps its own until it is left, so that a seal that was stopped can be begun again.
  return S_ISDIR(st.st_mode) ? Result<void>() : StripOverlayXattrs(parent, name, {});
}

Result<void> Sealer::Leave(const WalkStep& step) {
  const std::string name = TargetTree::Name(step.path);
  LS_ASSIGN(const int parent, target_.Parent(step.path));
  if (step.opaque) LS_TRY(SetXattr(parent, name, source_.opaque_xattr(), "y"));
  if (InPlace(*step.node)) LS_TRY(StripOverlayXattrs(parent, name, step.opaque ? source_.opaque_xattr() : ""));
  return SetTimes(parent, name, step.node->st);
}

// False where the file vanished from the layer, which is in use, before it could be copied.
Result<bool> Sealer::Make(const WalkStep& step, int parent, const std::string& name, struct stat& st) {
  const StackNode& node = *step.node;
  CopySubject subject;
  subject.st = st;
  UniqueFd data;
  if (S_ISREG(st.st_mode) && st.st_size > 0) {
    if (node.metacopy && node.data.directory == nullptr) {
      return DataError(Fault::kCorrupt, "its data is in no layer (metacopy)", step.path);
    }
    Result<UniqueFd> opened = source_.OpenFile(node.metacopy ? node.data : node.place);
    if (!opened && opened.error().err == ENOENT) return false;
    if (!opened) return opened.error();
    data = std::move(*opened);
    subject.data = data.get();
    subject.data_is_own = !node.metacopy;
  }
  LS_ASSIGN(subject.directory, source_.Descriptor(node.place.directory));
  subject.name = node.place.name;
  LS_TRY(CopyFile(subject, parent, name, step.path, cancel_));
  st = subject.st;
  return true;
}

Result<void> Sealer::Entry(const WalkStep& step) {
  const StackNode& node = *step.node;
  const std::string name = TargetTree::Name(step.path);
  LS_ASSIGN(const int parent, target_.Parent(step.path));
  if (!node.exists()) return Whiteout(step, parent, name);
  if (S_ISSOCK(node.st.st_mode)) return InPlace(node) ? Remove(parent, name, step.path) : Result<void>();
  if (IsWhiteoutName(step.path)) return NoFormInTar(step.path);
  if (const std::string* first = links_.FirstPath(node.st, step.path)) return Link(step, *first, parent, name);

  TarSubject subject;
  subject.path = step.path;
  subject.st = node.st;
  if (InPlace(node)) {
    LS_TRY(TakeOver(step, parent, name, subject.st));
  } else {
    LS_ASSIGN(const bool made, Make(step, parent, name, subject.st));
    if (!made) return {};
  }
  subject.directory = parent;
  subject.name = name;
  UniqueFd data;
  if (S_ISREG(subject.st.st_mode) && subject.st.st_size > 0) {
    LS_ASSIGN(data, OpenAt(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    subject.data = data.get();
    struct stat kept {};
    if (fstat(data.get(), &kept) != 0) return SysError("fstat", step.path);
    subject.st.st_size = kept.st_size;
  }
  LS_TRY(emitter_.Entry(subject, cancel_));
  progress_.bytes_unpacked.store(emitter_.size(), std::memory_order_relaxed);
  progress_.entries.store(emitter_.entries(), std::memory_order_relaxed);
  return {};
}

Result<void> Sealer::Step(const WalkStep& step) {
  switch (step.kind) {
    case WalkStep::Kind::kEntry:
      return Entry(step);
    case WalkStep::Kind::kOpaque:
      return emitter_.Opaque(step.path, step.node->st);
    case WalkStep::Kind::kHidden: {
      if (!consume_) return {};
      LS_ASSIGN(const int parent, target_.Parent(step.path));
      return Remove(parent, TargetTree::Name(step.path), step.path);
    }
    case WalkStep::Kind::kLeave:
      return Leave(step);
  }
  return {};
}

// The entries are those that EmitTree would write; the end of the tar is left to the caller.
Result<void> SealOverlay(const SealRequest& request, const DiffStack& diff, TarEmitter& emitter, Progress& progress,
                         const CancelToken& cancel) {
  if (request.consume) LS_TRY(PrepareTakeOver(diff, request.dropped_path, cancel));
  LS_ASSIGN(TargetTree target, TargetTree::Open(request.directory));
  Sealer sealer(diff, target, request.consume, emitter, progress, cancel);
  LS_ASSIGN(const std::unique_ptr<TreeWalk> walk, TreeWalk::Open(*diff.stack, diff.below));
  WalkStep step;
  for (;;) {
    LS_ASSIGN(const bool more, walk->Next(step, cancel));
    if (!more) break;
    LS_TRY(sealer.Step(step));
  }
  if (request.consume) {
    LS_ASSIGN(const int top, target.Parent("x"));
    LS_TRY(StripOverlayXattrs(top, {}, {}));
  }
  return emitter.Finish();
}

Result<IngestResult> SealWithRecord(const SealRequest& request, RecordWriter* record, Progress& progress,
                                    const CancelToken& cancel) {
  NullSink nowhere;
  LS_ASSIGN(const std::unique_ptr<HashedSink> out, HashedSink::Open(nowhere));
  TarEmitter emitter(*out, record, false);
  DiffRequest request_diff = request.diff;
  if (request_diff.upper.whiteouts == Whiteouts::kApply) {
    // A plain layer is a whole tree: it is copied whole, and the copy is what is compared and written.
    if (!request.consume) LS_TRY(CopyTree(request_diff.upper.directories.front(), request.directory, cancel));
    request_diff.upper.directories = {request.directory};
    LS_ASSIGN(const DiffStack diff, OpenDiff(request_diff));
    LS_TRY(EmitTree(diff, emitter, cancel));
  } else {
    LS_ASSIGN(const DiffStack diff, OpenDiff(request_diff));
    LS_TRY(SealOverlay(request, diff, emitter, progress, cancel));
  }
  IngestResult result;
  result.tar_size = result.blob_size = out->bytes();
  LS_ASSIGN(result.diff_id, out->Finish());
  result.size = emitter.size();
  result.entries = emitter.entries();
  progress.bytes_read.store(result.tar_size, std::memory_order_relaxed);
  progress.bytes_unpacked.store(result.size, std::memory_order_relaxed);
  progress.entries.store(result.entries, std::memory_order_relaxed);
  return result;
}

}  // namespace

Result<IngestResult> Seal(const SealRequest& request, Progress& progress, const CancelToken& cancel) {
  if (request.diff.upper.directories.empty()) return DataError(Fault::kInvalid, "no upper directory");
  std::unique_ptr<RecordWriter> record;  // removes a file that was not closed: half a record is of no use
  if (!request.tar_split_path.empty()) {
    LS_ASSIGN(record, RecordWriter::Open(request.tar_split_path));
  }
  LS_ASSIGN(const IngestResult result, SealWithRecord(request, record.get(), progress, cancel));
  if (record != nullptr) LS_TRY(record->Close());
  return result;
}

}  // namespace layerstore
