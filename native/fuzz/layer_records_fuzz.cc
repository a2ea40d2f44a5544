// ReadLayerRecords of a small directory that the input describes: sound records, damaged ones, links, FIFOs and
// directories where files belong. What it says of each entry is what a plain reader below says, which follows no link.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "hash/sha256.h"
#include "layer/layer_records.h"
#include "test/layer_fixture.h"

namespace {

namespace fs = std::filesystem;
using layerstore::LayerRecords;

constexpr size_t kMaxRecords = 12;
constexpr std::array<const char*, 5> kFiles = {"cache-id", "diff", "size", "parent", "descriptor.json"};

void Demand(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

// Input: the bytes from which a directory is made; gives zeros at its end, which mean what is sound.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : left_(data), end_(data + size) {}
  [[nodiscard]] bool empty() const { return left_ == end_; }
  uint8_t Byte() { return empty() ? 0 : *left_++; }
  std::string Text() {
    std::string text;
    for (size_t count = Byte(); count > 0 && !empty(); --count) text.push_back(static_cast<char>(Byte()));
    return text;
  }

 private:
  const uint8_t* left_;
  const uint8_t* end_;
};

std::string DigestOf(const std::string& text) {
  layerstore::Sha256 hash;
  hash.Update(layerstore::test::Bytes(text));
  return layerstore::FormatDigest(hash.Finish());
}

// Place: directories that stay: "few", "many", whose begun records are enough for the reader's threads, and "outside",
// where links lead. Single-threaded.
class Place {
 public:
  Place() {
    path_ = (fs::temp_directory_path() / "layerstore-records-XXXXXX").string();
    Demand(mkdtemp(path_.data()) != nullptr, "no scratch directory");
    for (const char* name : {"/few", "/many", "/outside"}) fs::create_directory(path_ + name);
    for (int n = 0; n < 256; ++n) {
      const std::string home = path_ + "/many/" + DigestOf(std::to_string(n)).substr(7);
      fs::create_directory(home);
      std::ofstream(home + "/cache-id") << "begun";
    }
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() { fs::remove_all(path_); }

  void Fill(Input& input) {
    directory_ = path_ + ((input.Byte() & 15) == 1 ? "/many" : "/few");
    for (size_t n = 0; n < kMaxRecords && !input.empty(); ++n) MakeRecord(input, n);
  }
  void Empty() {
    for (const std::string& path : made_) fs::remove_all(path);
    made_.clear();
    chains_.clear();
  }
  [[nodiscard]] const std::string& directory() const { return directory_; }

 private:
  void MakeRecord(Input& input, size_t n) {
    const size_t parent_byte = input.Byte() & 15;
    std::string parent;
    if (parent_byte > 0) parent = parent_byte <= chains_.size() ? chains_[parent_byte - 1] : DigestOf("nobody's");
    const std::string diff = DigestOf("diff" + std::to_string(input.Byte() & 7));
    const std::string chain = parent.empty() ? diff : DigestOf(parent + " " + diff);
    const std::array<std::string, 5> sound = {"cache-" + std::to_string(n), diff, std::to_string(n * 1000), parent,
                                              n % 2 == 0 ? "" : R"({"urls":[]})"};
    const std::string path = directory_ + "/" + Name(input, chain.substr(7));
    const std::string home = Home(input.Byte() & 7, path, n);
    chains_.push_back(chain);
    if (home.empty()) return;
    for (size_t i = 0; i < kFiles.size(); ++i) {
      MakeFile(input, home + "/" + kFiles[i], sound[i], i == 2 ? '9' : 'a');
    }
  }

  static std::string Name(Input& input, std::string chain) {
    switch (input.Byte() & 7) {
      case 4:
        for (char& c : chain) c = static_cast<char>(std::toupper(c));
        return chain;
      case 5: {
        std::string name = input.Text();
        std::erase_if(name, [](char c) { return c == '/' || c == '\0'; });
        return name.empty() || name == "." || name == ".." ? chain : name;
      }
      case 6:
        chain[input.Byte() % chain.size()] = '0';
        return chain;
      case 7:
        return chain + "-removing";
      default:
        return chain;
    }
  }

  // Makes `path`, and says where its files belong; empty: nowhere.
  std::string Home(int kind, const std::string& path, size_t n) {
    std::error_code ignored;
    if (fs::symlink_status(path, ignored).type() != fs::file_type::not_found) return "";
    std::string home = path;
    if (kind == 4) home = path_ + "/outside/" + std::to_string(n);
    if (kind == 5) home = directory_ + "/inside-" + std::to_string(n);
    made_.push_back(path);
    if (home != path) {
      if (!fs::create_directory(home, ignored)) return "";
      made_.push_back(home);
      Demand(symlink(home.c_str(), path.c_str()) == 0, "no link to a directory");
      return home;
    }
    if (kind == 6) std::ofstream(path) << "sha256:";
    if (kind == 7) Demand(mkfifo(path.c_str(), 0600) == 0, "no FIFO for a directory");
    return kind < 6 && fs::create_directory(path, ignored) ? path : "";
  }

  void MakeFile(Input& input, const std::string& path, const std::string& sound, char filler) {
    std::string content = sound;
    switch (input.Byte() & 15) {
      case 1:
        return;
      case 2:
        content = input.Text();
        break;
      case 3:
        if (!content.empty()) content[input.Byte() % content.size()] = static_cast<char>(input.Byte());
        break;
      case 4:
        std::ofstream{path};
        return;
      case 5:
        content += input.Text();
        break;
      case 6:
        content.append(600, filler);
        break;
      case 7:
        Demand(mkfifo(path.c_str(), 0600) == 0, "no FIFO");
        return;
      case 8:
        fs::create_directory(path);
        return;
      case 9:
        Link(path_ + "/outside/file-" + std::to_string(made_.size()), path, sound);
        return;
      case 10:
        Link(path + "-target", path, sound);
        return;
      case 11:
        Demand(symlink("nothing", path.c_str()) == 0, "no dangling link");
        return;
      case 12:
        content += "\n";
        break;
      case 13:
        content.assign(512, filler);
        break;
      case 14:
        content.assign(513, filler);
        break;
      case 15:
        content.assign(input.Byte(), filler);
        break;
      default:
        break;
    }
    if (!content.empty()) std::ofstream(path) << content;
  }

  // What the link leads to is sound: who followed it would take the record.
  void Link(const std::string& target, const std::string& path, const std::string& sound) {
    std::ofstream(target) << sound;
    made_.push_back(target);
    Demand(symlink(target.c_str(), path.c_str()) == 0, "no link");
  }

  std::string path_;
  std::string directory_;
  std::vector<std::string> made_;
  std::vector<std::string> chains_;  // what children name, whether that record is sound or not
};

// One record by the plain reader; nothing where it is not beyond doubt.
struct Record {
  std::string diff;
  std::string cache_id;
  std::string size;
  std::string parent;
  std::string descriptor;
};

bool Only(const std::string& text, const char* letters) { return text.find_first_not_of(letters) == std::string::npos; }

bool PlainHex(const std::string& text) { return text.size() == 64 && Only(text, "0123456789abcdef"); }

bool PlainDigest(const std::string& text) { return text.rfind("sha256:", 0) == 0 && PlainHex(text.substr(7)); }

// Nothing: there is something that is no record file. Empty: there is nothing.
std::optional<std::string> PlainFile(const std::string& path) {
  struct stat info = {};
  if (lstat(path.c_str(), &info) != 0) return "";
  if (!S_ISREG(info.st_mode) || info.st_size == 0 || info.st_size > 512) return std::nullopt;
  return layerstore::test::ReadFile(path);
}

std::optional<Record> PlainRecord(const std::string& path) {
  constexpr const char* kLetters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-";
  const std::string name = fs::path(path).filename();
  struct stat info = {};
  if (!PlainHex(name) || lstat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return std::nullopt;
  std::array<std::string, 5> text;
  for (size_t i = 0; i < kFiles.size(); ++i) {
    const auto content = PlainFile(path + "/" + kFiles[i]);
    if (!content || (content->empty() && i < 3)) return std::nullopt;
    text[i] = *content;
  }
  const auto& [cache_id, diff, size, parent, descriptor] = text;
  if (cache_id.size() > 128 || !Only(cache_id, kLetters) || std::string("_.-").find(cache_id[0]) != std::string::npos)
    return std::nullopt;
  if (!PlainDigest(diff) || size.size() > 15 || !Only(size, "0123456789")) return std::nullopt;
  if (!parent.empty() && !PlainDigest(parent)) return std::nullopt;
  for (const char c : descriptor) {
    if (c <= 0) return std::nullopt;
  }
  const std::string chain = parent.empty() ? diff : DigestOf(parent + " " + diff);
  if (chain.substr(7) != name) return std::nullopt;
  return Record{diff, cache_id, size, parent, descriptor};
}

// Sound, and all its parents are.
bool IsRow(const std::map<std::string, Record>& sound, const std::string& name) {
  const auto found = sound.find(name);
  if (found == sound.end()) return false;
  return found->second.parent.empty() || IsRow(sound, found->second.parent.substr(7));
}

void Check(const std::string& directory, const LayerRecords& records) {
  std::set<std::string> names;
  std::map<std::string, Record> sound;
  for (const auto& item : fs::directory_iterator(directory)) {
    names.insert(item.path().filename());
    if (auto record = PlainRecord(item.path())) sound.emplace(item.path().filename(), *record);
  }

  const size_t rows = records.ends.size();
  Demand(records.sizes.size() == rows && records.parents.size() == rows, "columns differ in length");
  std::map<uint32_t, std::string> descriptors(records.descriptors.begin(), records.descriptors.end());
  Demand(descriptors.size() == records.descriptors.size(), "a row has two descriptors");
  std::vector<std::string> order;
  size_t begin = 0;
  for (size_t row = 0; row < rows; ++row) {
    const size_t end = records.ends[row];
    Demand(end > begin + 142 && end <= records.text.size(), "an end is out of order");
    const std::string chain = records.text.substr(begin, 71);
    const auto found = sound.find(chain.substr(7));
    Demand(PlainDigest(chain) && found != sound.end(), "a row is no sound record");
    const Record& record = found->second;
    Demand(names.erase(found->first) == 1, "a name comes twice");
    Demand(records.text.substr(begin + 71, 71) == record.diff, "another diff id");
    Demand(records.text.substr(begin + 142, end - begin - 142) == record.cache_id, "another cache id");
    Demand(records.sizes[row] == std::stod(record.size), "another size");
    Demand(descriptors[static_cast<uint32_t>(row)] == record.descriptor, "another descriptor");
    const int32_t parent = records.parents[row];
    Demand(parent >= -1 && parent < static_cast<int32_t>(row), "a parent comes after its child");
    Demand((parent < 0 ? "" : order[static_cast<size_t>(parent)]) == record.parent, "another parent");
    order.push_back(chain);
    begin = end;
  }
  Demand(begin == records.text.size() && descriptors.size() == rows, "text or descriptors of no row");
  for (const std::string& name : records.others) {
    Demand(names.erase(name) == 1, "another name is no entry, or comes twice");
    Demand(!IsRow(sound, name), "a sound record is among the others");
  }
  Demand(names.empty(), "an entry is missing");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Place place;
  Input input(data, size);
  place.Fill(input);
  const size_t open_before = layerstore::test::OpenDescriptors();
  const auto records = layerstore::ReadLayerRecords(place.directory());
  Demand(layerstore::test::OpenDescriptors() == open_before, "descriptors stay open");
  Demand(records.ok(), "the directory could not be read");
  Check(place.directory(), *records);
  place.Empty();
  return 0;
}
