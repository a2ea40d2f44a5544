// WriteTreeTar: the tar of an RW layer, of a difference between layers, or of a whole tree, straight from the
// directories.
#include <fcntl.h>
#include <sys/stat.h>

#include <memory>

#include "layer/diff_stack.h"
#include "layer/files.h"
#include "layer/tar_emitter.h"
#include "layer/tar_source.h"
#include "layer/tree.h"
#include "layer/walk.h"
#include "tar/writer.h"

namespace layerstore {
namespace {

Result<void> WalkTar(const DiffStack& diff, TarEmitter& emitter, const CancelToken& cancel) {
  LS_ASSIGN(const std::unique_ptr<TreeWalk> walk, TreeWalk::Open(*diff.stack, diff.below));
  LinkTable links;
  WalkStep step;
  for (;;) {
    LS_ASSIGN(const bool more, walk->Next(step, cancel));
    if (!more) return {};
    if (step.kind == WalkStep::Kind::kOpaque) {
      LS_TRY(emitter.Opaque(step.path, step.node->st));
    } else if (step.kind == WalkStep::Kind::kEntry) {
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
Result<void> ChangesTar(const DiffStack& diff, TarEmitter& emitter, const CancelToken& cancel) {
  LS_ASSIGN(const std::vector<ChangeRecord> changes, CompareStack(diff, cancel));
  LinkTable links;
  PlainFinder finder(*diff.stack);
  for (const ChangeRecord& change : changes) {
    if (cancel.cancelled()) return Cancelled();
    const std::string path = change.path.substr(1);
    if (change.kind == ChangeKind::kDelete) {
      LS_ASSIGN(const bool needed, diff.Needs(path));
      if (needed) LS_TRY(emitter.Whiteout(path));
      continue;
    }
    LS_ASSIGN(const StackNode node, finder.Find(path));
    if (node.exists()) LS_TRY(EmitNode(*diff.stack, node, path, links, emitter, cancel));
  }
  return {};
}

}  // namespace

Result<void> EmitNode(Stack& stack, const StackNode& node, const std::string& path, LinkTable& links,
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

Result<void> EmitTree(const DiffStack& diff, TarEmitter& emitter, const CancelToken& cancel) {
  LS_TRY(diff.compares() ? ChangesTar(diff, emitter, cancel) : WalkTar(diff, emitter, cancel));
  return emitter.Finish();
}

Result<TarSummary> WriteTreeTar(const DiffRequest& request, ByteSink& sink, const CancelToken& cancel) {
  LS_ASSIGN(const DiffStack diff, OpenDiff(request));
  LS_ASSIGN(const std::unique_ptr<HashedSink> out, HashedSink::Open(sink));
  TarEmitter emitter(*out, nullptr, request.sparse);
  LS_TRY(EmitTree(diff, emitter, cancel));
  TarSummary summary;
  summary.bytes = out->bytes();
  LS_ASSIGN(summary.diff_id, out->Finish());
  return summary;
}

}  // namespace layerstore
