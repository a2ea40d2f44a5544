#include "tree/overlay_walk.h"

#include <dirent.h>

#include <algorithm>
#include <utility>

namespace layerstore::tree {

Result<std::unique_ptr<OverlayWalk>> OverlayWalk::Open(Stack& stack, uint32_t below) {
  std::unique_ptr<OverlayWalk> walk(new OverlayWalk(stack, below));
  StackNode root;
  root.kind = StackNode::Kind::kDirectory;
  root.parts = stack.Root(0, stack.layers());
  LS_TRY(walk->Enter(std::move(root), below == stack.layers(), false));
  return walk;
}

Result<void> OverlayWalk::Enter(StackNode node, bool whole, bool opaque) {
  Frame frame;
  frame.whole = whole;
  frame.opaque = frame.marker = opaque;
  frame.path_bytes = path_.size();
  LS_ASSIGN(std::vector<StackChild> children, stack_.List(node.parts, whole ? Stack::kAllLayers : below_));
  frame.node = std::move(node);
  frame.items.reserve(children.size() + children.size() / 4);
  for (StackChild& child : children) {
    // Only a directory has a content; where the file system does not tell, the entry's own lookup will.
    if (child.type == DT_DIR || child.type == DT_UNKNOWN)
      frame.items.push_back({child.name + "/", child.part, nullptr});
    frame.items.push_back({std::move(child.name), child.part, nullptr});
  }
  std::sort(frame.items.begin(), frame.items.end(), [](const Item& a, const Item& b) { return a.key < b.key; });
  frames_.push_back(std::move(frame));
  return {};
}

// The next item of the innermost directory; false where it gives no step.
Result<bool> OverlayWalk::GiveItem(OverlayStep& step) {
  Frame& frame = frames_.back();
  Item& item = frame.items[frame.next++];
  path_.resize(frame.path_bytes);
  if (item.key.back() == '/') {
    if (item.node == nullptr) return false;  // no directory after all
    StackNode node = std::move(*item.node);
    item.node.reset();
    const bool whole = frame.whole || node.redirected;
    const bool opaque = !frame.whole && (node.hides || node.redirected);
    if (!path_.empty()) path_ += '/';
    path_.append(item.key, 0, item.key.size() - 1);
    LS_TRY(Enter(std::move(node), whole, opaque));
    return false;
  }
  LS_ASSIGN(StackNode node, stack_.Lookup(frame.node.parts, item.key, item.part, below_));
  if (node.kind == StackNode::Kind::kNone) return false;  // gone meanwhile
  if (!path_.empty()) path_ += '/';
  path_ += item.key;
  if (path_.size() > Stack::kMaxPathBytes) return DataError(Fault::kLimit, "path length", path_);
  const bool hidden = frame.whole && node.kind == StackNode::Kind::kWhiteout;
  step.kind = hidden ? OverlayStep::Kind::kHidden : OverlayStep::Kind::kEntry;
  step.path = path_;
  step.opaque = !frame.whole && node.is_directory() && (node.hides || node.redirected);
  auto kept = std::make_unique<StackNode>(std::move(node));
  step.node = kept.get();
  // A directory's content comes later in this frame, under the name with a slash. Other nodes live until the next step.
  if (kept->is_directory()) {
    const std::string key = item.key + "/";
    const auto content =
        std::lower_bound(frame.items.begin() + static_cast<std::ptrdiff_t>(frame.next), frame.items.end(), key,
                         [](const Item& a, const std::string& b) { return a.key < b; });
    if (content != frame.items.end() && content->key == key) {
      content->node = std::move(kept);
      return true;
    }
  }
  given_ = std::move(*kept);
  step.node = &given_;
  return true;
}

Result<bool> OverlayWalk::Next(OverlayStep& step, const CancelToken& cancel) {
  while (!frames_.empty()) {
    if (cancel.cancelled()) return Cancelled();
    Frame& frame = frames_.back();
    if (frame.marker) {
      frame.marker = false;
      step.kind = OverlayStep::Kind::kOpaque;
      step.path.assign(path_, 0, frame.path_bytes);
      step.node = &frame.node;
      return true;
    }
    if (frame.next < frame.items.size()) {
      LS_ASSIGN(const bool given, GiveItem(step));
      if (given) return true;
      continue;
    }
    step.kind = OverlayStep::Kind::kLeave;
    step.opaque = frame.opaque;
    step.path.assign(path_, 0, frame.path_bytes);
    given_ = std::move(frame.node);
    step.node = &given_;
    frames_.pop_back();
    if (frames_.empty()) return false;
    return true;
  }
  return false;
}

}  // namespace layerstore::tree
