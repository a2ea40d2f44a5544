// ReadLayerRecords: the records of all layers below one directory, in the format of Docker's layerdb. Called on any
// thread; reads on threads of its own, which are gone when it returns.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "sys/result.h"

namespace layerstore {

// Records beyond doubt, and the names of all other entries. Parents come before their children, and a parent that is
// not beyond doubt leaves its children among the others: who reads those carefully sees what is wrong with them, if
// anything is.
struct LayerRecords {
  // For each record its chain id and its diff id, "sha256:" and 64 digits each, and its cache id; that ends at `ends`.
  std::string text;
  std::vector<uint32_t> ends;
  std::vector<double> sizes;
  std::vector<int32_t> parents;                               // row of the parent; -1: it has none
  std::vector<std::pair<uint32_t, std::string>> descriptors;  // ASCII, of rows that have one
  std::vector<std::string> others;
  bool housed = false;  // every record's cache id names one of the trees
};

// Where every layer has a directory that is called by its cache id; one name there is none of a layer.
struct LayerTrees {
  std::string directory;  // empty: nobody asks
  std::string reserved;
};

// A file that keeps what was read for the next time (RecordIndex).
struct RecordIndexFile {
  std::string path;    // empty: there is none
  bool write = false;  // where reading it anew would be worth it
};

// The trees are looked at when the records are read: who publishes a layer makes its tree first.
Result<LayerRecords> ReadLayerRecords(const std::string& directory, const LayerTrees& trees = {},
                                      const RecordIndexFile& index_file = {});

}  // namespace layerstore
