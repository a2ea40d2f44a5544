// WalkTree: every file of one directory tree, parents before children, in the file system's order, without crossing
// mounts or following links. Memory is the names of the directories on the way; descriptors are bounded. Any thread.
#pragma once

#include <sys/stat.h>

#include <functional>
#include <string>

#include "sys/control.h"
#include "sys/result.h"

namespace layerstore::tree {

struct TreeStep {
  enum class Kind : uint8_t { kEntry, kLeave };
  Kind kind = Kind::kEntry;
  std::string path;    // below the top; empty: the top itself
  int directory = -1;  // lent: the directory that holds the file; of the top: the top
  std::string name;    // in it; empty: the top
  struct stat st {};
};

// kDataOnly: devices, fifos and sockets are left out where the directory tells them, which saves a system call each.
enum class TreeSelection : uint8_t { kAll, kDataOnly };

// kEntry for the top and everything below; kLeave for a directory after everything in it. Directories on other file
// systems are given and not entered. What vanishes meanwhile is left out. Fault::kLimit for paths longer than 16 KiB.
Result<void> WalkTree(const std::string& top, const std::function<Result<void>(const TreeStep&)>& visit,
                      const CancelToken& cancel, TreeSelection selection = TreeSelection::kAll);

}  // namespace layerstore::tree
