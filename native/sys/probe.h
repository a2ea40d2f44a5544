// Kernel features that are not about mounts, probed once a process.
#pragma once

#include <map>
#include <string>

namespace layerstore::sys {

// "kernel" -> its release; other names -> "yes", or why not.
const std::map<std::string, std::string>& ProbeKernel();

}  // namespace layerstore::sys
