// WriteTreeTar: the tar of an RW layer, of a difference between layers, or of a whole tree, straight from the
// directories.
#include "pack/tree_tar.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <memory>

#include "pack/pack.h"
#include "pack/tar_emitter.h"
#include "tree/diff_stack.h"
#include "tree/overlay_walk.h"
#include "tree/tree.h"

namespace layerstore::pack {
namespace {

Result<void> WalkTar(const tree::DiffStack& diff, TarEmitter& emitter, const CancelToken& cancel) {
  LS_ASSIGN(const std::unique_ptr<tree::OverlayWalk> walk, tree::OverlayWalk::Open(*diff.stack, diff.below));
  tree::LinkTable links;
  tree::OverlayStep step;
  for (;;) {
    LS_ASSIGN(const bool more, walk->Next(step, cancel));
    if (!more) return {};
    if (step.kind == tree::OverlayStep::Kind::kOpaque) {
      LS_TRY(emitter.Opaque(step.path, step.node->st));
    } else if (step.kind == tree::OverlayStep::Kind::kEntry) {
      if (step.node->exists()) {
        LS_TRY(EmitNode(*diff.stack, *step.node, step.path, links, emitter, cancel));
      } else {
        LS_ASSIGN(const bool needed, diff.Needs(step.path));
        if (needed) LS_TRY(emitter.Whiteout(step.path));
      }
    }
  }
}

// Two whole trees: what changed is found first, then written. The list of changes is what memory it takes.
Result<void> ChangesTar(const tree::DiffStack& diff, TarEmitter& emitter, const CancelToken& cancel) {
  LS_ASSIGN(const std::vector<tree::ChangeRecord> changes, tree::CompareStack(diff, cancel));
  tree::LinkTable links;
  tree::PlainFinder finder(*diff.stack);
  for (const tree::ChangeRecord& change : changes) {
    if (cancel.cancelled()) return Cancelled();
    const std::string path = change.path.substr(1);
    if (change.kind == tree::ChangeKind::kDelete) {
      LS_ASSIGN(const bool needed, diff.Needs(path));
      if (needed) LS_TRY(emitter.Whiteout(path));
      continue;
    }
    LS_ASSIGN(const tree::StackNode node, finder.Find(path));
    if (node.exists()) LS_TRY(EmitNode(*diff.stack, node, path, links, emitter, cancel));
  }
  return {};
}

}  // namespace

Result<void> EmitNode(tree::Stack& stack, const tree::StackNode& node, const std::string& path, tree::LinkTable& links,
                      TarEmitter& emitter, const CancelToken& cancel) {
  if (S_ISSOCK(node.st.st_mode)) return {};
  if (const std::string* first = links.FirstPath(node.st, path)) return emitter.HardLink(path, node.st, *first);
  TarSubject subject;
  subject.path = path;
  subject.st = node.st;
  UniqueFd data;
  if (S_ISREG(node.st.st_mode) && node.st.st_size > 0) {
    if (node.metacopy && node.data.directory == nullptr) {
      return DataError(Fault::kCorrupt, "its data is in no layer (metacopy)", path);
    }
    LS_ASSIGN(data, stack.OpenFile(node.metacopy ? node.data : node.place));
    struct stat now {};
    if (fstat(data.get(), &now) != 0) return SysError("fstat", path);
    if (!S_ISREG(now.st_mode)) return DataError(Fault::kCorrupt, "the file was replaced while it was read", path);
    subject.st.st_size = now.st_size;
    subject.data = data.get();
  }
  LS_ASSIGN(subject.directory, stack.Descriptor(node.place.directory));
  subject.name = node.place.name;
  return emitter.Entry(subject, cancel);
}

Result<void> EmitTree(const tree::DiffStack& diff, TarEmitter& emitter, const CancelToken& cancel) {
  LS_TRY(diff.compares() ? ChangesTar(diff, emitter, cancel) : WalkTar(diff, emitter, cancel));
  return emitter.Finish();
}

Result<TarSummary> WriteTreeTar(const tree::DiffRequest& request, ByteSink& sink, const CancelToken& cancel) {
  LS_ASSIGN(const tree::DiffStack diff, tree::OpenDiff(request));
  LS_ASSIGN(const std::unique_ptr<hash::HashedSink> out, hash::HashedSink::Open(sink));
  TarEmitter emitter(*out, nullptr, request.sparse);
  LS_TRY(EmitTree(diff, emitter, cancel));
  TarSummary summary;
  summary.bytes = out->bytes();
  LS_ASSIGN(summary.diff_id, out->Finish());
  return summary;
}

}  // namespace layerstore::pack
