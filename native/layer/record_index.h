// RecordIndex: what an earlier process read of the records of one layerdb, so that the next need not open thousands of
// small files. It is a help, never the truth: an entry counts only while the record's directory is the very one that
// was read (inode, times of change), which is so unless a file in it was made, removed or replaced; and only until the
// machine restarts or the file system is mounted anew, since what a power cut or a lost disk does to files leaves their
// directory as it was. Written over in place, a record is not noticed here; verify() reads the files themselves.
// Immutable; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "layer/layer_record_reader.h"
#include "sys/name_table.h"
#include "sys/pages.h"
#include "sys/result.h"

namespace layerstore {

class RecordIndex {
 public:
  // Which records it is of: a boot of the machine, a mount in it, and a directory there.
  struct Scope {
    std::array<char, 36> boot{};
    uint64_t mount = 0;  // never used twice in a boot
    uint64_t device = 0;
    uint64_t inode = 0;
    bool operator==(const Scope&) const = default;
  };
  // None where the kernel tells no boot, or no such number of a mount (Linux 6.8 on).
  static std::optional<Scope> ScopeOf(int directory);

  RecordIndex() = default;
  // Empty where there is none, or none of this scope, or it is damaged.
  static RecordIndex Load(const std::string& path, const Scope& scope);

  // Whether it knows the record that has this name and stamp; fills the candidate in then.
  bool Take(Candidate& candidate) const;

  // Replaces the index at `path`. Not synced. `candidates`: those with `lasting` are taken.
  static Result<void> Write(const std::string& path, const Scope& scope, std::span<const Candidate> candidates);

 private:
  struct Entry;
  [[nodiscard]] Entry At(size_t i) const;

  Pages bytes_;
  size_t count_ = 0;
  NameTable by_name_{0};
};

// Of the record's directory, for `candidate.stamp`; false where it cannot be had.
bool TakeStamp(int directory, Candidate& candidate);

}  // namespace layerstore
