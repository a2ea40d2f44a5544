#include "layer/layer_records.h"

#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <ctime>
#include <functional>
#include <optional>
#include <span>
#include <string_view>

#include "layer/layer_record_reader.h"
#include "layer/record_index.h"
#include "sys/directory.h"
#include "sys/name_table.h"
#include "sys/open.h"
#include "sys/pages.h"
#include "sys/thread.h"

namespace layerstore {
namespace {

// Two: what is cached is read at the speed of the processors, of which a small machine has two; more would only
// contend.
constexpr size_t kReaders = 2;
constexpr size_t kAtOnce = 64;         // layers that a reader takes
constexpr size_t kWorthThreads = 256;  // layers
constexpr size_t kWorthPages = 1024;   // layers: fewer are cheaper by small pages than by a huge one
constexpr size_t kTextBytes = 2 * (kDigestAlgorithm.size() + Candidate::kHexBytes) + Candidate::kMaxCacheId;
constexpr int32_t kNone = NameTable::kNone;
constexpr size_t kWorthIndex = 512;   // layers
constexpr size_t kWorthWriting = 16;  // the part of them that were not in the index
// A directory that was changed so short a time ago may change once more within the same tick of its clock.
constexpr int64_t kRacy = 2'000'000'000;

int64_t Now() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

using Descriptors = std::vector<std::pair<uint32_t, std::string>>;  // by candidate

// Candidates: a fixed number of them, in memory that costs few page faults. Borrowed from by who reads, one thread
// each.
class Candidates {
 public:
  explicit Candidates(std::string_view names) {
    const size_t count = names.size() / Candidate::kHexBytes;
    if (count >= kWorthPages) {
      pages_ = Pages(count * sizeof(Candidate));
      all_ = {reinterpret_cast<Candidate*>(pages_.bytes().data()), count};
    } else {
      few_.resize(count);
      all_ = few_;
    }
    for (size_t i = 0; i < count; ++i) names.copy(all_[i].name.data(), Candidate::kHexBytes, i * Candidate::kHexBytes);
  }

  [[nodiscard]] size_t size() const { return all_.size(); }
  Candidate& operator[](size_t i) { return all_[i]; }
  [[nodiscard]] std::span<const Candidate> all() const { return all_; }

 private:
  std::vector<Candidate> few_;
  Pages pages_;
  std::span<Candidate> all_;
};

// What `index` knows is taken from there; without one nothing is to become part of one.
Descriptors ReadAll(const std::string& directory, Candidates& candidates, const RecordIndex* index,
                    std::atomic<size_t>& missed) {
  std::atomic<size_t> cursor{0};
  const int64_t lasting = Now() - kRacy;
  const auto work = [&](bool own_thread, Descriptors& descriptors) {
    RecordReader reader(directory, own_thread);
    for (;;) {
      const size_t first = cursor.fetch_add(kAtOnce);
      if (first >= candidates.size()) return;
      const size_t end = std::min(first + kAtOnce, candidates.size());
      for (size_t i = first; i < end; ++i) {
        Candidate& candidate = candidates[i];
        // Before the files: what changes while they are read makes another stamp.
        const bool stamped = index != nullptr && TakeStamp(reader.directory(), candidate);
        if (stamped && index->Take(candidate) && IsLayerId(candidate.cache()) && reader.FitsName(candidate)) {
          candidate.sound = candidate.lasting = true;
          continue;
        }
        const std::string_view descriptor = reader.Read(candidate);
        if (!descriptor.empty()) descriptors.emplace_back(static_cast<uint32_t>(i), descriptor);
        candidate.lasting = stamped && candidate.sound && descriptor.empty() && candidate.stamp.changed < lasting &&
                            candidate.stamp.modified < lasting;
        if (candidate.lasting) missed++;
      }
    }
  };
  std::array<Descriptors, kReaders> found;
  std::vector<Thread> threads;
  if (candidates.size() >= kWorthThreads) {
    for (Descriptors& mine : found) {
      Result<Thread> started = Thread::Start([&work, &mine] { work(true, mine); }, {"ls-records", false, 0});
      if (started) threads.push_back(std::move(*started));
    }
  }
  if (threads.empty()) work(false, found[0]);
  for (Thread& thread : threads) thread.Join();
  Descriptors& all = found[0];
  for (size_t i = 1; i < found.size(); ++i) std::ranges::move(found[i], std::back_inserter(all));
  return std::move(all);
}

void AppendRow(const Candidate& candidate, int32_t parent, LayerRecords& records) {
  records.text.append(kDigestAlgorithm).append(TextOf(candidate.name));
  records.text.append(kDigestAlgorithm).append(TextOf(candidate.diff)).append(candidate.cache());
  records.ends.push_back(static_cast<uint32_t>(records.text.size()));
  records.sizes.push_back(candidate.size);
  records.parents.push_back(parent);
}

// Rows in an order in which a chain's layers follow each other.
void Arrange(Candidates& candidates, Descriptors&& descriptors, LayerRecords& records) {
  const size_t count = candidates.size();
  NameTable by_name(count);
  for (size_t i = 0; i < count; ++i) {
    Candidate& candidate = candidates[i];
    // A name that was listed twice, as may be where somebody renames meanwhile, is for the careful reader.
    candidate.sound = candidate.sound && by_name.Insert(TextOf(candidate.name), static_cast<int32_t>(i));
  }
  // Lists of children and of layers without parent, by the number of the first and of each one's next.
  std::vector<int32_t> first_child(count, kNone);
  std::vector<int32_t> sibling(count, kNone);
  std::vector<int32_t> rows(count, kNone);
  int32_t first = kNone;
  for (size_t i = 0; i < count; ++i) {
    if (!candidates[i].sound) continue;
    int32_t* list = &first;
    if (candidates[i].has_parent) {
      const int32_t parent = by_name.Find(TextOf(candidates[i].parent));
      if (parent == kNone) continue;
      list = &first_child[static_cast<size_t>(parent)];
    }
    sibling[i] = std::exchange(*list, static_cast<int32_t>(i));
  }
  records.text.reserve(count * kTextBytes);
  records.ends.reserve(count);
  records.sizes.reserve(count);
  records.parents.reserve(count);
  std::vector<int32_t> lists;  // what is left of the lists of those that were placed
  for (int32_t next = first; next != kNone || !lists.empty();) {
    if (next == kNone) {
      next = lists.back();
      lists.pop_back();
      continue;
    }
    const auto at = static_cast<size_t>(next);
    Candidate& candidate = candidates[at];
    rows[at] = static_cast<int32_t>(records.ends.size());
    const int32_t parent =
        candidate.has_parent ? rows[static_cast<size_t>(by_name.Find(TextOf(candidate.parent)))] : kNone;
    AppendRow(candidate, parent, records);
    if (sibling[at] != kNone) lists.push_back(sibling[at]);
    next = first_child[at];
  }
  for (auto& [candidate, text] : descriptors) {
    if (rows[candidate] != kNone) records.descriptors.emplace_back(rows[candidate], std::move(text));
  }
  for (size_t i = 0; i < count; ++i) {
    if (rows[i] == kNone) records.others.emplace_back(TextOf(candidates[i].name));
  }
}

// Whether each record that is a row has its tree. False, too, where the trees cannot be listed: who asks for their
// names hears why.
bool AllHoused(Candidates& candidates, const LayerTrees& trees) {
  if (trees.directory.empty()) return false;
  const Result<std::string> listed = ListNames(trees.directory, true);
  if (!listed) return false;
  const std::string_view names = *listed;
  NameTable table(static_cast<size_t>(std::ranges::count(names, '/')));
  for (size_t at = 0; at < names.size();) {
    const std::string_view name = names.substr(at, names.find('/', at) - at);
    if (name != trees.reserved) table.Insert(name, 0);
    at += name.size() + 1;
  }
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].sound && table.Find(candidates[i].cache()) == kNone) return false;
  }
  return true;
}

}  // namespace

Result<LayerRecords> ReadLayerRecords(const std::string& directory, const LayerTrees& trees,
                                      const RecordIndexFile& index_file) {
  LayerRecords records;
  std::string names;
  LS_ASSIGN(const UniqueFd fd, OpenPath(directory, O_RDONLY | O_DIRECTORY));
  {
    DirectoryReader reader(fd.get());
    DirectoryEntry entry;
    for (;;) {
      LS_ASSIGN(const bool more, reader.Next(entry));
      if (!more) break;
      if (entry.type == DT_DIR && IsHex(entry.name)) {
        names.append(entry.name);
      } else {
        records.others.emplace_back(entry.name);
      }
    }
  }
  // Rows are told by 31 bits, and places in the text by 32.
  if (names.size() / Candidate::kHexBytes > UINT32_MAX / kTextBytes) {
    return DataError(Fault::kLimit, "records", directory);
  }
  Candidates candidates(names);
  const bool indexed = !index_file.path.empty() && candidates.size() >= kWorthIndex;
  const std::optional<RecordIndex::Scope> scope = indexed ? RecordIndex::ScopeOf(fd.get()) : std::nullopt;
  std::atomic<size_t> missed{0};  // records that could be in the index and are not, or not as they are
  Descriptors descriptors;
  {
    const RecordIndex index = scope ? RecordIndex::Load(index_file.path, *scope) : RecordIndex();
    descriptors = ReadAll(directory, candidates, scope ? &index : nullptr, missed);
  }
  Arrange(candidates, std::move(descriptors), records);
  if (index_file.write && scope && missed > candidates.size() / kWorthWriting) {
    // It helps the next one, who will do without where it cannot be written.
    (void)RecordIndex::Write(index_file.path, *scope, candidates.all());
  }
  records.housed = AllHoused(candidates, trees);
  return records;
}

}  // namespace layerstore
