// The mount table of this process, and the processes that keep a mount busy. Functions keep no state; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sys/result.h"

namespace layerstore::mount {

struct MountInfo {
  uint64_t id = 0, parent = 0;
  std::string fs_type, source, target, root, options;
};
// This process' mount table at or below `directory`, in mount order.
Result<std::vector<MountInfo>> ReadMounts(const std::string& directory);

struct Holder {
  int pid = 0;
  std::string command;
};
// Processes that keep `target` busy: cwd, root, open files, maps below it.
std::vector<Holder> FindHolders(const std::string& target);

}  // namespace layerstore::mount
