// Changes and DiffSize: Docker's set of changes (ChangesDirs of moby/go-archive), found from the upper directories: the
// lower ones are looked at only where an upper entry, an opaque directory or a redirect covers them.
#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

#include "tree/diff_stack.h"
#include "tree/overlay_walk.h"
#include "tree/stack.h"
#include "tree/tree.h"
#include "tree/tree_walk.h"
#include "tree/xattr_io.h"

namespace layerstore::tree {
namespace {

bool SameParts(const LayerDirRef* a, size_t a_count, const LayerDirRef* b, size_t b_count) {
  return std::equal(a, a + a_count, b, b + b_count, [](const LayerDirRef& x, const LayerDirRef& y) {
    return x->layer == y->layer && x->path == y->path;
  });
}

// Equal where the seconds are and either nanosecond part is 0: a tar may have cut them.
bool SameTime(const struct timespec& a, const struct timespec& b) {
  return a.tv_sec == b.tv_sec && (a.tv_nsec == b.tv_nsec || a.tv_nsec == 0 || b.tv_nsec == 0);
}

bool SameStat(const struct stat& a, const struct stat& b) {
  if (a.st_mode != b.st_mode || a.st_uid != b.st_uid || a.st_gid != b.st_gid || a.st_rdev != b.st_rdev) return false;
  return S_ISDIR(a.st_mode) || (a.st_size == b.st_size && SameTime(a.st_mtim, b.st_mtim));
}

// Compares the tree with what lies below it, directory by directory, with a stack of its own.
class Comparison {
 public:
  Comparison(Stack& stack, uint32_t below, const CancelToken& cancel) : stack_(stack), below_(below), cancel_(cancel) {}

  Result<std::vector<ChangeRecord>> Run(MergedDir now, MergedDir before);

 private:
  struct Name {
    std::string name;
    bool now = false, before = false;
    uint32_t now_part = 0, before_part = 0;
  };
  struct Frame {
    MergedDir now, before;
    std::vector<Name> names;
    size_t next = 0;
    size_t path_bytes = 0;
    size_t changes_before = 0;
    bool listed = false;  // the directory itself is a change already
  };

  Result<void> Enter(MergedDir now, MergedDir before, bool listed);
  Result<void> Compare(Frame& frame, const Name& name);
  Result<bool> SameFile(const StackNode& now, const StackNode& before);
  [[nodiscard]] bool Identical(const StackNode& now, const StackNode& before) const;
  void Add(ChangeKind kind) { changes_.push_back({"/" + path_, kind}); }

  Stack& stack_;
  uint32_t below_;
  const CancelToken& cancel_;
  std::vector<Frame> frames_;
  std::vector<ChangeRecord> changes_;
  std::string path_;
};

Result<void> Comparison::Enter(MergedDir now, MergedDir before, bool listed) {
  Frame frame;
  frame.listed = listed;
  frame.path_bytes = path_.size();
  frame.changes_before = changes_.size();
  // Where the same directories lie below both, only what the upper ones hold can differ.
  const auto lower =
      std::find_if(now.begin(), now.end(), [&](const LayerDirRef& part) { return part->layer >= below_; });
  const auto uppers = static_cast<size_t>(lower - now.begin());
  const bool same_below =
      !before.empty() && SameParts(now.data() + uppers, now.size() - uppers, before.data(), before.size());
  LS_ASSIGN(std::vector<StackChild> children, stack_.List(now, same_below ? below_ : Stack::kAllLayers));
  std::vector<StackChild> old_children;
  if (!same_below && !before.empty()) {
    LS_ASSIGN(old_children, stack_.List(before));
  }
  auto old = old_children.begin();
  const auto add_old = [&] { frame.names.push_back({std::move(old->name), false, true, 0, old->part}); };
  for (StackChild& child : children) {
    for (; old != old_children.end() && old->name < child.name; old++) add_old();
    Name name{std::move(child.name), true, same_below, child.part, 0};
    if (old != old_children.end() && old->name == name.name) {
      name.before = true;
      name.before_part = old->part;
      old++;
    }
    frame.names.push_back(std::move(name));
  }
  for (; old != old_children.end(); old++) add_old();
  frame.now = std::move(now);
  frame.before = std::move(before);
  frames_.push_back(std::move(frame));
  return {};
}

Result<bool> Comparison::SameFile(const StackNode& now, const StackNode& before) {
  if (!SameStat(now.st, before.st)) return false;
  std::string capability[2];
  const StackNode* nodes[2] = {&now, &before};
  for (int i = 0; i < 2; i++) {
    LS_ASSIGN(const int directory, stack_.Descriptor(nodes[i]->place.directory));
    LS_TRY(GetXattr(directory, nodes[i]->place.name, "security.capability", capability[i]));
  }
  return capability[0] == capability[1];
}

// The very same file or directories, found in both views.
bool Comparison::Identical(const StackNode& now, const StackNode& before) const {
  if (now.kind != before.kind || now.place.directory->layer != before.place.directory->layer ||
      now.place.directory->path != before.place.directory->path || now.place.name != before.place.name) {
    return false;
  }
  return !now.is_directory() || SameParts(now.parts.data(), now.parts.size(), before.parts.data(), before.parts.size());
}

Result<void> Comparison::Compare(Frame& frame, const Name& name) {
  path_.resize(frame.path_bytes);
  if (!path_.empty()) path_ += '/';
  path_ += name.name;
  if (path_.size() > Stack::kMaxPathBytes) return DataError(Fault::kLimit, "path length", path_);
  StackNode now;
  StackNode before;
  if (name.now) {
    LS_ASSIGN(now, stack_.Lookup(frame.now, name.name, name.now_part, below_));
  }
  if (name.before) {
    LS_ASSIGN(before, stack_.Lookup(frame.before, name.name, name.before_part));
  }
  if (!now.exists()) {
    if (before.exists()) Add(ChangeKind::kDelete);
    return {};
  }
  bool listed = false;
  if (!before.exists()) {
    Add(ChangeKind::kAdd);
    listed = true;
  } else {
    if (Identical(now, before)) return {};
    LS_ASSIGN(const bool same, SameFile(now, before));
    if (!same) {
      Add(ChangeKind::kModify);
      listed = true;
    }
  }
  // `frame` is not used after this: the frames may move.
  if (now.is_directory()) return Enter(std::move(now.parts), std::move(before.parts), listed);
  return {};
}

Result<std::vector<ChangeRecord>> Comparison::Run(MergedDir now, MergedDir before) {
  LS_TRY(Enter(std::move(now), std::move(before), true));
  while (!frames_.empty()) {
    if (cancel_.cancelled()) return Cancelled();
    Frame& frame = frames_.back();
    if (frame.next < frame.names.size()) {
      const Name name = std::move(frame.names[frame.next++]);
      LS_TRY(Compare(frame, name));
      continue;
    }
    path_.resize(frame.path_bytes);
    if (!frame.listed && changes_.size() > frame.changes_before) Add(ChangeKind::kModify);
    frames_.pop_back();
  }
  std::sort(changes_.begin(), changes_.end(),
            [](const ChangeRecord& a, const ChangeRecord& b) { return a.path < b.path; });
  return std::move(changes_);
}

}  // namespace

namespace {

// What one upper directory says alone: whiteouts and devices have no size, and that of a metacopy is its file's.
// Nothing where a directory is redirected: what it brings from below counts too.
Result<std::optional<uint64_t>> SizeOfUpper(const TreeStack& upper, const CancelToken& cancel) {
  const char* redirect =
      upper.whiteouts == Whiteouts::kOverlayUser ? "user.overlay.redirect" : "trusted.overlay.redirect";
  std::unordered_set<ino_t> linked;
  uint64_t size = 0;
  bool redirected = false;
  CancelToken stop;
  const auto visit = [&](const TreeStep& step) -> Result<void> {
    if (cancel.cancelled()) return Cancelled();
    if (redirected || step.kind == TreeStep::Kind::kLeave) return {};
    const struct stat& st = step.st;
    if (S_ISDIR(st.st_mode)) {
      std::string value;
      LS_ASSIGN(redirected, GetXattr(step.directory, step.name, redirect, value));
      if (redirected) stop.Cancel();
    } else if (st.st_nlink < 2 || linked.insert(st.st_ino).second) {
      size += static_cast<uint64_t>(st.st_size);
    }
    return {};
  };
  const Result<void> walked = WalkTree(upper.directories.front(), visit, stop, TreeSelection::kDataOnly);
  if (redirected) return std::optional<uint64_t>();
  if (!walked) return walked.error();
  return std::optional<uint64_t>(size);
}

}  // namespace

Result<std::vector<ChangeRecord>> CompareStack(const DiffStack& diff, const CancelToken& cancel) {
  Stack& stack = *diff.stack;
  Comparison comparison(stack, diff.below, cancel);
  return comparison.Run(stack.Root(0, diff.plain ? diff.below : stack.layers()),
                        stack.Root(diff.below, stack.layers()));
}

Result<std::vector<ChangeRecord>> Changes(const DiffRequest& request, const CancelToken& cancel) {
  LS_ASSIGN(const DiffStack diff, OpenDiff(request));
  return CompareStack(diff, cancel);
}

Result<uint64_t> DiffSize(const DiffRequest& request, const CancelToken& cancel) {
  if (request.upper.whiteouts != Whiteouts::kApply && request.upper.directories.size() == 1) {
    LS_ASSIGN(const std::optional<uint64_t> size, SizeOfUpper(request.upper, cancel));
    if (size) return *size;
  }
  LS_ASSIGN(const DiffStack diff, OpenDiff(request));
  LinkTable links;
  uint64_t size = 0;
  const auto count = [&](const struct stat& st, const std::string& path) {
    if (!S_ISDIR(st.st_mode) && links.FirstPath(st, path) == nullptr) size += static_cast<uint64_t>(st.st_size);
  };
  if (diff.compares()) {
    LS_ASSIGN(const std::vector<ChangeRecord> changes, CompareStack(diff, cancel));
    PlainFinder finder(*diff.stack);
    for (const ChangeRecord& change : changes) {
      if (change.kind == ChangeKind::kDelete) continue;
      LS_ASSIGN(const StackNode node, finder.Find(change.path.substr(1)));
      if (node.exists()) count(node.st, change.path);
    }
    return size;
  }
  LS_ASSIGN(const std::unique_ptr<OverlayWalk> walk, OverlayWalk::Open(*diff.stack, diff.below));
  OverlayStep step;
  for (;;) {
    LS_ASSIGN(const bool more, walk->Next(step, cancel));
    if (!more) return size;
    if (step.kind == OverlayStep::Kind::kEntry && step.node->exists()) count(step.node->st, step.path);
  }
}

}  // namespace layerstore::tree
