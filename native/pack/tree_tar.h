// From a Stack's nodes to a tar's entries. No state; one thread at a time for a Stack.
#pragma once

#include <string>

#include "pack/tar_emitter.h"
#include "tree/diff_stack.h"

namespace layerstore::pack {

// One file, with its data from where a metacopy xattr leads. Sockets give nothing.
Result<void> EmitNode(tree::Stack& stack, const tree::StackNode& node, const std::string& path, tree::LinkTable& links,
                      TarEmitter& emitter, const CancelToken& cancel);

// All entries and the end of the tar.
Result<void> EmitTree(const tree::DiffStack& diff, TarEmitter& emitter, const CancelToken& cancel);

}  // namespace layerstore::pack
