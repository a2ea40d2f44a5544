// OverlayWalk: the entries of a layer's tar in the tar's order (byte order of path), from a Stack. Memory is the names
// of the directories from the root to where the walk is. One thread at a time; borrows the Stack.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sys/control.h"
#include "tree/stack.h"

namespace layerstore::tree {

struct OverlayStep {
  enum class Kind : uint8_t {
    kEntry,   // a file, a directory before anything in it, or a whiteout
    kOpaque,  // the directory was entered and is opaque: its marker's turn
    kHidden,  // a whiteout that the tar leaves out: a marker above it says it all, or there is nothing below
    kLeave,   // everything below the directory was given
  };
  Kind kind = Kind::kEntry;
  std::string path;                 // without a leading slash; of a whiteout: of what it removes
  const StackNode* node = nullptr;  // valid until the next step
  // kEntry and kLeave of a directory: its marker is given.
  bool opaque = false;
};

class OverlayWalk {
 public:
  // Layers [0, below) lie on top of the others: the walk gives what they hold, and all of the merged content below a
  // redirect. With `below` the number of layers it gives the whole merged tree, without whiteouts and markers.
  static Result<std::unique_ptr<OverlayWalk>> Open(Stack& stack, uint32_t below);
  // The next step; false at the end.
  Result<bool> Next(OverlayStep& step, const CancelToken& cancel);

 private:
  struct Item {
    std::string key;  // the name; of a directory's content: with a slash, which is where its paths sort
    uint32_t part = 0;
    std::unique_ptr<StackNode> node;
  };
  struct Frame {
    StackNode node;      // the directory
    bool whole = false;  // all layers' content is given, not only that of the upper ones
    bool opaque = false;
    bool marker = false;  // the opaque marker is still to be given
    std::vector<Item> items;
    size_t next = 0;
    size_t path_bytes = 0;  // of the directory's path in path_
  };

  OverlayWalk(Stack& stack, uint32_t below) : stack_(stack), below_(below) {}
  Result<void> Enter(StackNode node, bool whole, bool opaque);
  Result<bool> GiveItem(OverlayStep& step);

  Stack& stack_;
  uint32_t below_;
  std::vector<Frame> frames_;
  StackNode given_;  // what a kLeave step lends
  std::string path_;
};

}  // namespace layerstore::tree
