// EntryMetadata: owner, mode, xattrs and times of what an entry made, set so that none undoes another and only where
// they differ from what the creation gave. Used by the applying thread alone.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "sys/result.h"
#include "tar/entry.h"

namespace layerstore::tree {

// What the maker of a layer may do with files. kNamespace: root of a user namespace, where no device can be made and of
// the attributes of trusted.* and security.* only capabilities can be set. kNone: nobody's root; owners cannot be set
// either, so setuid and setgid bits are left out (they would mean another user), and the maker can always read what it
// made. Whatever is left out is kept by the record alone; verify goes by the same rules.
enum class Privilege : uint8_t { kFull, kNamespace, kNone };

// Bits of a mode that are the maker's business and not the archive's.
inline mode_t BitsOfMaker(bool directory, Privilege privilege) {
  if (privilege != Privilege::kNone) return 0;
  return static_cast<mode_t>(06000 | (directory ? 0700 : 0400));
}

struct EntryMetadata {
  // To the kernel an id of 2^32-1 (or -1) means "leave it as it is": it cannot be given to a file.
  static constexpr uid_t kNoId = static_cast<uid_t>(-1);

  uid_t uid = 0;
  gid_t gid = 0;
  mode_t mode = 0;  // 07777
  struct timespec times[2] = {};
  Privilege privilege = Privilege::kFull;

  // The entry's numbers are within CheckNumbers().
  static EntryMetadata Of(const tar::Entry& entry, Privilege privilege);
  [[nodiscard]] bool keeps_owner() const { return uid != kNoId && gid != kNoId; }
  // An id that cannot be given is any.
  [[nodiscard]] bool OwnedBy(uid_t user, gid_t group) const {
    return (uid == kNoId || uid == user) && (gid == kNoId || gid == group);
  }
};

// Fault::kBadTar for ids beyond 32 bits (negative ones are taken as two's complement, as other unpackers do) and for
// sizes that no file system has: what would come out is another number.
Result<void> CheckNumbers(const tar::Entry& entry);

// Whether a file system that was given the entry's time has `found`: the nearest that it can hold. All hold 1901 to
// 2038.
bool HoldsTime(const tar::Entry& entry, const struct timespec& found);

// What the calling process makes things as.
struct Creator {
  uid_t uid;
  gid_t gid;
  static Creator Self();
};

// An open file or directory. `made_mode`: what it was made with. `inherits`: its parent may have given it another group
// or an ACL, so nothing is skipped. xattrs that file systems never have here are counted, not an error.
struct ApplyFlags {
  mode_t made_mode = 0;
  bool inherits = false;
  bool directory = false;  // its default ACL and times are set at the end
};
Result<void> ApplyToFd(int fd, const tar::Entry& entry, const EntryMetadata& metadata, const Creator& creator,
                       const ApplyFlags& flags, const std::string& path, uint64_t& ignored_xattrs);
// A symbolic link, device or FIFO, which are never opened.
Result<void> ApplyToName(int parent, const std::string& name, const tar::Entry& entry, const EntryMetadata& metadata,
                         const Creator& creator, bool inherits, const std::string& path, uint64_t& ignored_xattrs);

}  // namespace layerstore::tree
