// Applier: makes a layer's tree out of tar entries, one after another. Names are made on the calling thread alone,
// which must have its own umask of 0 (ThreadOptions::private_fs); small files are filled by a FileWriter behind it, and
// all of them before anything looks at what is there. It owns every descriptor it opens. Nothing outside the layer's
// directory can be reached, whatever the archive says: parents are found below the root (ParentCache), and what is made
// there is made by its last component, exclusively, without following anything.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sys/control.h"
#include "tar/entry.h"
#include "tree/entry_metadata.h"
#include "unpack/directory_ends.h"
#include "unpack/entry_name.h"
#include "unpack/file_writer.h"
#include "unpack/ingest.h"
#include "unpack/parent_cache.h"
#include "unpack/replaced.h"

namespace layerstore::unpack {

class Applier {
 public:
  // `request` outlives the Applier.
  static Result<std::unique_ptr<Applier>> Open(const IngestRequest& request);

  // Makes what the entry says; a file stays open for Write(). True: the record may name it (its content can be read
  // back from the tree by its name, and the name is new).
  Result<bool> Begin(const tar::Entry& entry);
  // Data as the archive has it: of a sparse file only the regions. It lies in `block`, which stays as it is.
  Result<void> Write(std::span<const uint8_t> data, const BlockQueue::Ref& block);
  Result<void> End(const tar::Entry& entry);
  // Between entries: the archive goes on in another block, so it is worth a second thread.
  Result<void> NextBlock();
  // After the last entry: what directories get at the end.
  Result<void> Finish(const CancelToken& cancel);

  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] uint64_t ignored_xattrs() const { return ignored_xattrs_; }
  // Entries with an id that no file can have.
  [[nodiscard]] uint64_t ignored_owners() const { return ignored_owners_; }
  // Directories that no entry asked for by itself: they cost as much as entries do.
  [[nodiscard]] uint64_t implied() const { return implied_count_; }
  // What was overwritten or hidden; where it was used, size() is that of everything ever made.
  [[nodiscard]] Replaced& replaced() { return replaced_; }
  [[nodiscard]] const tree::InodeSet* made() const { return keeps_made_ ? &made_ : nullptr; }
  [[nodiscard]] int root() const { return root_.get(); }

 private:
  Applier(const IngestRequest& request, UniqueFd root);

  ParentCache::Owns Owns(const IngestRequest& request);
  static bool IsNoDirectory(const Error& error);

  Result<bool> Make(const tar::Entry& entry, const EntryPath& path);
  Result<Parent> FindParent(std::string_view path);
  Result<void> NoteUsed(std::string_view path, uint64_t inode);
  Result<void> MakeImplied(std::string_view path);
  Result<bool> MakeFile(const tar::Entry& entry, const EntryPath& path);
  Result<bool> MakeDirectory(const tar::Entry& entry, const EntryPath& path);
  Result<bool> MakeNode(const tar::Entry& entry, const EntryPath& path);
  Result<bool> MakeHardLink(const tar::Entry& entry, const EntryPath& path);
  Result<bool> AlignLink(const tar::Entry& entry, const Parent& parent, const std::string& name,
                         const struct stat& info);
  Result<bool> MakeWhiteout(const tar::Entry& entry, const EntryPath& path);
  Result<bool> MakeOpaque(const EntryPath& path);
  Result<void> Hide(const Parent& parent, const std::string& name, const struct stat& info);
  Result<bool> ClearLower(std::string_view path);
  Result<void> ClearWay(const Parent& parent, const std::string& name);
  Result<void> SetOpaque(int parent, const std::string& name, bool& was);
  Result<void> WriteAt(std::span<const uint8_t> data, uint64_t offset);
  void Made(const struct stat& info);
  Result<void> NoteImplied(int parent, const std::string& name);
  Result<void> NoteMade(int parent, const std::string& name);
  [[nodiscard]] bool IsWhiteoutDevice(const struct stat& info) const;
  [[nodiscard]] bool Ours(const struct stat& info) const { return !keeps_made_ || made_.contains(info.st_ino); }
  [[nodiscard]] bool OursOrUsed(const struct stat& info) const { return Ours(info) || used_.contains(info.st_ino); }
  [[nodiscard]] Error ParentError(Error error, std::string_view path) const;

  const IngestRequest& request_;
  UniqueFd root_;
  ParentCache parents_;
  Replaced replaced_;
  DirectoryEnds ends_;
  tree::Creator creator_ = tree::Creator::Self();
  FileWriter writer_;
  bool long_ = false;  // more than one block
  const bool keeps_made_;
  tree::InodeSet made_;
  // Directories that no entry has named yet, and (kApply) those emptied of what lies below: so that the record names
  // each once. Bounded; what finds no room is recorded without its name.
  static constexpr size_t kMaxNoted = size_t{1} << 16;
  tree::InodeSet implied_;
  tree::InodeSet cleared_;
  // kApply: directories that lie on the way to what the archive names. In a tree of its own the layer would have them
  // too.
  tree::InodeSet used_;
  // kApply: directories in which nothing of the parent can be, so that no tree is cleared twice.
  tree::InodeSet pure_;
  uint64_t implied_count_ = 0;
  uint64_t size_ = 0;
  uint64_t ignored_xattrs_ = 0;
  uint64_t ignored_owners_ = 0;

  // The entry between Begin() and End().
  std::string path_;
  bool aliased_ = false;  // a link leads to it
  UniqueFd file_;
  bool behind_ = false;  // its data is for writer_
  std::vector<std::span<const uint8_t>> pieces_;
  tree::ApplyFlags flags_;
  uint64_t position_ = 0;  // in the file's own data: of a sparse file within region_
  size_t region_ = 0;
  const tar::Entry* entry_ = nullptr;
};

}  // namespace layerstore::unpack
