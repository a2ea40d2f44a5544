// CommitTree: an RW layer's changes become a layer's directory, and what is kept there is what is hashed and recorded:
// each file is made first (or taken over) and the tar's entry is written from what was made.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "pack/pack.h"
#include "pack/tar_emitter.h"
#include "pack/tree_tar.h"
#include "sys/fd_io.h"
#include "sys/open.h"
#include "tar/writer.h"
#include "tarsplit/writer.h"
#include "tree/copy.h"
#include "tree/diff_stack.h"
#include "tree/overlay_walk.h"
#include "tree/tree.h"
#include "tree/xattr_io.h"

namespace layerstore::pack {
namespace {

// The tar itself goes nowhere: only its digest and its record are wanted.
class NullSink final : public ByteSink {
 public:
  Result<void> Write(std::span<const uint8_t> /*bytes*/) override { return {}; }
};

Result<void> StripOverlayXattrs(int directory, const std::string& name, std::string_view but) {
  LS_ASSIGN(const std::vector<std::string> own, tree::ListOverlayXattrs(directory, name));
  for (const std::string& xattr : own) {
    if (xattr != but) LS_TRY(tree::RemoveXattr(directory, name, xattr));
  }
  return {};
}

Error NoFormInTar(const std::string& path) {
  return DataError(Fault::kNotSupported, "a name that begins with .wh. means a removal in a tar", path);
}

// A file that is there whole or not at all, and on disk before what follows.
Result<void> WriteRemovedWhiteouts(const std::string& path, const std::string& content) {
  const std::string unfinished = path + ".new";
  {
    LS_ASSIGN(const UniqueFd file, sys::OpenPath(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
    sys::FdSink sink(file.get());
    LS_TRY(sink.Write({reinterpret_cast<const uint8_t*>(content.data()), content.size()}));
    if (fsync(file.get()) != 0) return SysError("fsync", unfinished);
  }
  if (rename(unfinished.c_str(), path.c_str()) != 0) return SysError("rename", unfinished, path);
  LS_ASSIGN(const UniqueFd directory, sys::OpenPath(path.substr(0, path.rfind('/') + 1), O_RDONLY | O_DIRECTORY));
  if (fsync(directory.get()) != 0) return SysError("fsync", path);
  return {};
}

// What cannot be written into a tar is found before anything of a layer that is taken over is touched, and the
// whiteouts that will be removed from it are written down.
Result<void> PrepareTakeOver(const tree::DiffStack& diff, const std::string& removed_whiteouts_tar,
                             const CancelToken& cancel) {
  std::string removed;
  LS_ASSIGN(const std::unique_ptr<tree::OverlayWalk> walk, tree::OverlayWalk::Open(*diff.stack, diff.below));
  tree::OverlayStep step;
  for (;;) {
    LS_ASSIGN(const bool more, walk->Next(step, cancel));
    if (!more) break;
    if (step.kind != tree::OverlayStep::Kind::kEntry) continue;
    if (step.node->exists()) {
      if (tree::IsWhiteoutName(step.path)) return NoFormInTar(step.path);
      continue;
    }
    if (removed_whiteouts_tar.empty()) continue;
    LS_ASSIGN(const bool needed, diff.Needs(step.path));
    if (needed) continue;
    tar::Entry entry;
    entry.name = tree::WhiteoutPath(step.path);
    entry.mode = 0600;
    LS_TRY(tar::AppendHeader(entry, removed));
  }
  if (removed.empty()) return {};
  removed.append(tar::kEndBytes, '\0');
  return WriteRemovedWhiteouts(removed_whiteouts_tar, removed);
}

// Turns the walk over an overlay-form difference into the layer's directory and the tar's entries, entry by entry.
class Committer {
 public:
  Committer(const tree::DiffStack& diff, tree::TargetTree& target, bool consume, TarEmitter& emitter,
            Progress& progress, const CancelToken& cancel)
      : diff_(diff),
        source_(*diff.stack),
        target_(target),
        consume_(consume),
        emitter_(emitter),
        progress_(progress),
        cancel_(cancel) {}

  Result<void> Step(const tree::OverlayStep& step);

 private:
  Result<void> Entry(const tree::OverlayStep& step);
  Result<void> Leave(const tree::OverlayStep& step);
  Result<void> Whiteout(const tree::OverlayStep& step, int parent, const std::string& name);
  Result<void> Link(const tree::OverlayStep& step, const std::string& first, int parent, const std::string& name);
  Result<bool> Make(const tree::OverlayStep& step, int parent, const std::string& name, struct stat& st);
  Result<void> TakeOver(const tree::OverlayStep& step, int parent, const std::string& name, struct stat& st);
  Result<void> FillMetacopy(const tree::OverlayStep& step, int parent, const std::string& name, struct stat& st);
  Result<void> Remove(int parent, const std::string& name, const std::string& path);
  // Whether the file is in the target already, being the RW layer's own.
  [[nodiscard]] bool InPlace(const tree::StackNode& node) const { return consume_ && node.place.directory->layer == 0; }

  const tree::DiffStack& diff_;
  tree::Stack& source_;
  tree::TargetTree& target_;
  bool consume_;
  TarEmitter& emitter_;
  Progress& progress_;
  const CancelToken& cancel_;
  tree::LinkTable links_;
};

Result<void> Committer::Remove(int parent, const std::string& name, const std::string& path) {
  if (unlinkat(parent, name.c_str(), 0) != 0 && errno != ENOENT) return SysError("unlink", path);
  return {};
}

Result<void> Committer::Whiteout(const tree::OverlayStep& step, int parent, const std::string& name) {
  LS_ASSIGN(const bool needed, diff_.Needs(step.path));
  if (!needed) return consume_ ? Remove(parent, name, step.path) : Result<void>();
  bool there = false;
  if (consume_) {
    struct stat st {};
    there = fstatat(parent, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && tree::IsWhiteoutDevice(st);
    if (!there) LS_TRY(Remove(parent, name, step.path));
  }
  if (!there && mknodat(parent, name.c_str(), S_IFCHR, 0) != 0) return SysError("mknod", step.path);
  return emitter_.Whiteout(step.path);
}

Result<void> Committer::Link(const tree::OverlayStep& step, const std::string& first, int parent,
                             const std::string& name) {
  if (!InPlace(*step.node)) {
    LS_ASSIGN(const UniqueFd here, sys::OpenAt(parent, ".", O_PATH | O_DIRECTORY));
    LS_ASSIGN(const int there, target_.ParentOfLink(first));
    if (linkat(there, tree::TargetTree::Name(first).c_str(), here.get(), name.c_str(), 0) != 0)
      return SysError("link", first, step.path);
  }
  return emitter_.HardLink(step.path, step.node->st, first);
}

// The file of a metacopy xattr gets its data; its times stay.
Result<void> Committer::FillMetacopy(const tree::OverlayStep& step, int parent, const std::string& name,
                                     struct stat& st) {
  if (step.node->data.directory == nullptr)
    return DataError(Fault::kCorrupt, "its data is in no layer (metacopy)", step.path);
  LS_ASSIGN(const UniqueFd data, source_.OpenFile(step.node->data));
  struct stat from {};
  if (fstat(data.get(), &from) != 0) return SysError("fstat", step.path);
  LS_ASSIGN(const UniqueFd file, sys::OpenAt(parent, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK));
  LS_TRY(sys::CopyData(data.get(), file.get(), static_cast<uint64_t>(from.st_size), step.path, cancel_));
  LS_TRY(tree::SetOwnerAndMode(parent, name, st));  // a write takes setuid bits away
  LS_TRY(tree::SetTimes(parent, name, st));
  st.st_size = from.st_size;
  return {};
}

Result<void> Committer::TakeOver(const tree::OverlayStep& step, int parent, const std::string& name, struct stat& st) {
  if (step.node->metacopy) LS_TRY(FillMetacopy(step, parent, name, st));
  // A directory keeps its own until it is left, so that a commit that was stopped can be begun again.
  return S_ISDIR(st.st_mode) ? Result<void>() : StripOverlayXattrs(parent, name, {});
}

Result<void> Committer::Leave(const tree::OverlayStep& step) {
  const std::string name = tree::TargetTree::Name(step.path);
  LS_ASSIGN(const int parent, target_.Parent(step.path));
  if (step.opaque) LS_TRY(tree::SetXattr(parent, name, source_.opaque_xattr(), "y"));
  if (InPlace(*step.node)) LS_TRY(StripOverlayXattrs(parent, name, step.opaque ? source_.opaque_xattr() : ""));
  return tree::SetTimes(parent, name, step.node->st);
}

// False where the file vanished from the layer, which is in use, before it could be copied.
Result<bool> Committer::Make(const tree::OverlayStep& step, int parent, const std::string& name, struct stat& st) {
  const tree::StackNode& node = *step.node;
  tree::CopySubject subject;
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
  LS_TRY(tree::CopyFile(subject, parent, name, step.path, cancel_));
  st = subject.st;
  return true;
}

Result<void> Committer::Entry(const tree::OverlayStep& step) {
  const tree::StackNode& node = *step.node;
  const std::string name = tree::TargetTree::Name(step.path);
  LS_ASSIGN(const int parent, target_.Parent(step.path));
  if (!node.exists()) return Whiteout(step, parent, name);
  if (S_ISSOCK(node.st.st_mode)) return InPlace(node) ? Remove(parent, name, step.path) : Result<void>();
  if (tree::IsWhiteoutName(step.path)) return NoFormInTar(step.path);
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
    LS_ASSIGN(data, sys::OpenAt(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
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

Result<void> Committer::Step(const tree::OverlayStep& step) {
  switch (step.kind) {
    case tree::OverlayStep::Kind::kEntry:
      return Entry(step);
    case tree::OverlayStep::Kind::kOpaque:
      return emitter_.Opaque(step.path, step.node->st);
    case tree::OverlayStep::Kind::kHidden: {
      if (!consume_) return {};
      LS_ASSIGN(const int parent, target_.Parent(step.path));
      return Remove(parent, tree::TargetTree::Name(step.path), step.path);
    }
    case tree::OverlayStep::Kind::kLeave:
      return Leave(step);
  }
  return {};
}

// The entries are those that EmitTree would write; the end of the tar is left to the caller.
Result<void> CommitOverlay(const CommitTreeRequest& request, const tree::DiffStack& diff, TarEmitter& emitter,
                           Progress& progress, const CancelToken& cancel) {
  if (request.consume) LS_TRY(PrepareTakeOver(diff, request.removed_whiteouts_tar, cancel));
  LS_ASSIGN(tree::TargetTree target, tree::TargetTree::Open(request.directory));
  Committer committer(diff, target, request.consume, emitter, progress, cancel);
  LS_ASSIGN(const std::unique_ptr<tree::OverlayWalk> walk, tree::OverlayWalk::Open(*diff.stack, diff.below));
  tree::OverlayStep step;
  for (;;) {
    LS_ASSIGN(const bool more, walk->Next(step, cancel));
    if (!more) break;
    LS_TRY(committer.Step(step));
  }
  if (request.consume) {
    LS_ASSIGN(const int top, target.Parent("x"));
    LS_TRY(StripOverlayXattrs(top, {}, {}));
  }
  return emitter.Finish();
}

Result<CommittedTree> CommitWithTarSplit(const CommitTreeRequest& request, tarsplit::Writer* record, Progress& progress,
                                         const CancelToken& cancel) {
  NullSink nowhere;
  LS_ASSIGN(const std::unique_ptr<hash::HashedSink> out, hash::HashedSink::Open(nowhere));
  TarEmitter emitter(*out, record, false);
  tree::DiffRequest request_diff = request.diff;
  if (request_diff.upper.whiteouts == tree::Whiteouts::kApply) {
    // A plain layer is a whole tree: it is copied whole, and the copy is what is compared and written.
    if (!request.consume) LS_TRY(tree::CopyTree(request_diff.upper.directories.front(), request.directory, cancel));
    request_diff.upper.directories = {request.directory};
    LS_ASSIGN(const tree::DiffStack diff, tree::OpenDiff(request_diff));
    LS_TRY(EmitTree(diff, emitter, cancel));
  } else {
    LS_ASSIGN(const tree::DiffStack diff, tree::OpenDiff(request_diff));
    LS_TRY(CommitOverlay(request, diff, emitter, progress, cancel));
  }
  CommittedTree result;
  result.tar_size = out->bytes();
  LS_ASSIGN(result.diff_id, out->Finish());
  result.size = emitter.size();
  result.entries = emitter.entries();
  progress.bytes_read.store(result.tar_size, std::memory_order_relaxed);
  progress.bytes_unpacked.store(result.size, std::memory_order_relaxed);
  progress.entries.store(result.entries, std::memory_order_relaxed);
  return result;
}

}  // namespace

Result<CommittedTree> CommitTree(const CommitTreeRequest& request, Progress& progress, const CancelToken& cancel) {
  if (request.diff.upper.directories.empty()) return DataError(Fault::kInvalid, "no upper directory");
  std::unique_ptr<tarsplit::Writer> record;  // removes a file that was not closed: half a record is of no use
  if (!request.tar_split_path.empty()) {
    LS_ASSIGN(record, tarsplit::Writer::Open(request.tar_split_path));
  }
  LS_ASSIGN(const CommittedTree result, CommitWithTarSplit(request, record.get(), progress, cancel));
  if (record != nullptr) LS_TRY(record->Close());
  return result;
}

}  // namespace layerstore::pack
