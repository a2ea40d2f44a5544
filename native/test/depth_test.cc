// Depth costs nothing: whatever is asked of a tree, a directory takes as many system calls 3,000 levels down as 300
// levels down, also where paths pass 4,096 bytes, on the way down and on the way back. Calls are counted, not time.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>

#include "pack/pack.h"
#include "test/counted_calls.h"
#include "test/tree_support.h"
#include "tree/verify.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

enum class What : uint8_t { kLayer, kChanges };

// Directories called "dd" inside each other. In each: a file before and one behind the next directory, in byte order;
// where they are changes, other ones and a whiteout of a file below.
void MakeDeep(const std::string& top, size_t depth, What what) {
  int at = open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const auto put = [&](const char* name) {
    const int file = openat(at, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    CHECK(write(file, name, 2) == 2);
    close(file);
  };
  for (size_t i = 0; i < depth; i++) {
    put(what == What::kLayer ? "ab" : "aa");
    put("zz");
    if (what == What::kChanges) CHECK(mknodat(at, "ab", S_IFCHR, 0) == 0);
    CHECK(mkdirat(at, "dd", 0755) == 0);
    const int next = openat(at, "dd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    close(at);
    at = next;
  }
  close(at);
}

class Discard final : public ByteSink {
 public:
  Result<void> Write(std::span<const uint8_t> /*bytes*/) override { return {}; }
};

// Calls per directory of each operation on trees of one depth.
std::vector<std::pair<std::string, double>> Measure(size_t depth) {
  const Scratch scratch;
  const CancelToken cancel;
  Progress progress;
  Discard sink;
  MakeDeep(scratch.Dir("lower"), depth, What::kLayer);
  MakeDeep(scratch.Dir("upper"), depth, What::kChanges);
  tree::DiffRequest overlay;
  overlay.upper.directories = {scratch / "upper"};
  overlay.lower.directories = {scratch / "lower"};
  overlay.whiteouts_of = tree::TreeStack{{scratch / "lower"}, tree::Whiteouts::kOverlay};
  tree::DiffRequest alone = overlay;
  alone.lower.directories.clear();
  tree::DiffRequest plain;
  plain.upper = {{scratch / "upper"}, tree::Whiteouts::kApply};
  plain.lower = {{scratch / "lower"}, tree::Whiteouts::kApply};

  std::vector<std::pair<std::string, double>> costs;
  const auto measure = [&](const char* what, const std::function<Result<void>()>& work) {
    const size_t before = calls.load();
    const Result<void> done = work();
    Report(done.ok(), __FILE__, __LINE__, std::string(what) + (done.ok() ? "" : ": " + Describe(done.error())));
    costs.emplace_back(what, static_cast<double>(calls.load() - before) / static_cast<double>(depth));
  };
  const auto seal = [&](const std::string& name, bool consume) -> Result<hash::Sha256Digest> {
    pack::CommitTreeRequest request;
    request.diff = overlay;
    request.directory = consume ? scratch / "upper" : scratch.Dir(name);
    request.consume = consume;
    request.tar_split_path = scratch / (name + ".json.gz");
    LS_ASSIGN(const pack::CommittedTree result, pack::CommitTree(request, progress, cancel));
    return result.diff_id;
  };
  for (const auto& [kind, diff] : {std::pair("overlay", overlay), {"alone", alone}, {"plain", plain}}) {
    measure((std::string("changes, ") + kind).c_str(), [&]() -> Result<void> {
      LS_TRY(tree::Changes(diff, cancel));
      return {};
    });
    measure((std::string("size, ") + kind).c_str(), [&]() -> Result<void> {
      LS_TRY(tree::DiffSize(diff, cancel));
      return {};
    });
    measure((std::string("tar, ") + kind).c_str(), [&]() -> Result<void> {
      LS_TRY(pack::WriteTreeTar(diff, sink, cancel));
      return {};
    });
  }
  hash::Sha256Digest diff_id{};
  measure("commit, cloned", [&]() -> Result<void> {
    LS_ASSIGN(diff_id, seal("layer", false));
    return {};
  });
  measure("export", [&]() -> Result<void> {
    LS_TRY(pack::Assemble({scratch / "layer.json.gz", scratch / "layer", diff_id}, sink, cancel));
    return {};
  });
  measure("verify", [&]() -> Result<void> {
    LS_ASSIGN(const std::vector<tree::TreeProblem> problems,
              tree::VerifyTree({scratch / "layer.json.gz", scratch / "layer", tree::Whiteouts::kOverlay,
                                tree::Privilege::kFull, diff_id, 0},
                               cancel));
    CHECK_EQ(problems.size(), 0U);
    return {};
  });
  measure("usage", [&]() -> Result<void> {
    LS_TRY(tree::Usage(scratch / "layer", cancel));
    return {};
  });
  measure("copy", [&]() -> Result<void> { return tree::CopyTree(scratch / "layer", scratch.Dir("copy"), cancel); });
  measure("removal", [&]() -> Result<void> { return tree::RemoveTree(scratch / "copy", cancel); });
  measure("commit, taken over", [&]() -> Result<void> {
    LS_TRY(seal("taken", true));
    return {};
  });
  return costs;
}

}  // namespace

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto shallow = Measure(300);
  const auto deep = Measure(3000);
  for (size_t i = 0; i < shallow.size(); i++) {
    const auto& [what, few] = shallow[i];
    const double many = deep[i].second;
    std::printf("%-20s %6.1f calls a directory at 300, %6.1f at 3,000\n", what.c_str(), few, many);
    Report(many <= few * 1.5, __FILE__, __LINE__, what + ": more than 1.5 times as much");
  }
  return Finish();
}
