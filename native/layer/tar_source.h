// From a Stack's nodes to a tar's entries. No state; one thread at a time for a Stack.
#pragma once

#include <string>

#include "layer/diff_stack.h"
#include "layer/tar_emitter.h"

namespace layerstore {

// One file, with its data from where a metacopy xattr leads. Sockets give nothing.
Result<void> EmitNode(Stack& stack, const StackNode& node, const std::string& path, LinkTable& links,
                      TarEmitter& emitter, const CancelToken& cancel);

// All entries and the end of the tar.
Result<void> EmitTree(const DiffStack& diff, TarEmitter& emitter, const CancelToken& cancel);

}  // namespace layerstore
