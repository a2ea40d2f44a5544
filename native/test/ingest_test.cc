// Ingest on good input: what the tree becomes, and that record and tree give the tar back byte for byte.
#include "unpack/ingest.h"

#include <sys/sysmacros.h>

#include <algorithm>

#include "sys/thread.h"
#include "test/layer_fixture.h"
#include "test/tar_build.h"
#include "tree/verify.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

// Tests run in the top directory of the repository.
constexpr char kSamples[] = "test/data/tar";

// Registers `tar` and holds what comes out against it.
unpack::IngestResult Exact(Scratch& scratch, const std::string& tar, const std::string& what,
                           unpack::IngestRequest request = {}) {
  request.directory = scratch.tree();
  request.tar_split_path = scratch.record();
  auto result = RunIngest(tar, request);
  Report(result.ok(), __FILE__, __LINE__, what + ": " + (result.ok() ? "" : Describe(result.error())));
  if (!result.ok()) return {};
  const GivenBack back = GiveBack(scratch);
  Report(back.problem.empty(), __FILE__, __LINE__, what + ": " + back.problem);
  Report(back.tar == tar, __FILE__, __LINE__, what + ": other bytes");
  Report(Tidy(scratch, true), __FILE__, __LINE__, what + ": something is left");
  hash::Sha256 sha;
  sha.Update(Bytes(tar));
  CHECK_EQ(result->diff_id, sha.Finish());
  std::vector<std::string> names = back.names;
  std::sort(names.begin(), names.end());
  Report(std::adjacent_find(names.begin(), names.end()) == names.end(), __FILE__, __LINE__,
         what + ": a name twice in the record");
  return *result;
}

void TestTypes() {
  Scratch scratch;
  const std::string tar = Archive({
      {.name = "etc/", .type = '5', .mode = 01777},
      {.name = "etc/passwd", .data = "root", .mode = 04755, .uid = 7, .gid = 8},
      {.name = "etc/link", .type = '2', .link = "passwd", .uid = 5},
      {.name = "etc/hard", .type = '1', .link = "etc/passwd", .mode = 04755, .uid = 7, .gid = 8},
      {.name = "dev/null", .type = '3', .mode = 0666, .major = 1, .minor = 3},
      {.name = "dev/fifo", .type = '6', .mode = 0600},
      {.name = "a/b/c/empty"},
      {.name = "sgid/", .type = '5', .mode = 02755, .gid = 9},
      {.name = "sgid/file", .data = "x"},
      {.name = "sgid/dir/", .type = '5', .mode = 0755},
      {.name = "mode0", .data = "y", .mode = 0},
      {.name = std::string("bad\xff\x80name"), .data = "z"},
      {.name = "time", .data = "t", .pax = {{"mtime", "1234567890.123456789"}}},
      {.name = "before", .data = "t", .pax = {{"mtime", "-1.25"}}},
      {.name = "xattr",
       .data = "t",
       .pax = {{"SCHILY.xattr.user.a", "one"},
               {"SCHILY.xattr.user.empty", ""},
               {"SCHILY.xattr.trusted.overlay.opaque", "y"}}},
  });
  const mode_t before = umask(0777);
  const unpack::IngestResult result = Exact(scratch, tar, "types");
  umask(before);
  const std::string tree = scratch.tree() + "/";
  CHECK_EQ(result.entries, 15U);
  CHECK_EQ(result.size, 4U + 6 + 1 + 1 + 1 + 3);
  CHECK_EQ(result.ignored_xattrs, 1U);
  CHECK_EQ(Stat(tree + "etc").st_mode, mode_t{S_IFDIR | 01777});
  CHECK_EQ(Stat(tree + "etc").st_mtim.tv_sec, 1700000000);
  CHECK_EQ(Stat(tree + "etc/passwd").st_mode, mode_t{S_IFREG | 04755});
  CHECK_EQ(Stat(tree + "etc/passwd").st_uid, 7U);
  CHECK_EQ(Stat(tree + "etc/passwd").st_nlink, 2U);
  CHECK_EQ(Stat(tree + "etc/link").st_uid, 5U);
  CHECK(S_ISLNK(Stat(tree + "etc/link").st_mode));
  CHECK_EQ(Stat(tree + "dev/null").st_rdev, makedev(1, 3));
  CHECK_EQ(Stat(tree + "dev/null").st_mode, mode_t{S_IFCHR | 0666});
  CHECK_EQ(Stat(tree + "dev/fifo").st_mode, mode_t{S_IFIFO | 0600});
  CHECK_EQ(Stat(tree + "dev").st_mode, mode_t{S_IFDIR | 0755});
  CHECK_EQ(Stat(tree + "a/b").st_mode, mode_t{S_IFDIR | 0755});
  CHECK_EQ(Stat(tree + "sgid").st_mode, mode_t{S_IFDIR | 02755});
  CHECK_EQ(Stat(tree + "sgid/file").st_gid, 0U);
  CHECK_EQ(Stat(tree + "sgid/dir").st_gid, 0U);
  CHECK_EQ(Stat(tree + "sgid/dir").st_mode, mode_t{S_IFDIR | 0755});
  CHECK_EQ(Stat(tree + "mode0").st_mode, mode_t{S_IFREG});
  CHECK_EQ(ReadFile(tree + "bad\xff\x80name"), "z");
  CHECK_EQ(Stat(tree + "time").st_mtim.tv_nsec, 123456789);
  CHECK_EQ(Stat(tree + "before").st_mtim.tv_sec, -2);
  CHECK_EQ(Stat(tree + "before").st_mtim.tv_nsec, 750000000);
  CHECK_EQ(Xattr(tree + "xattr", "user.a"), "one");
  CHECK_EQ(Xattr(tree + "xattr", "user.empty"), "");
  CHECK_EQ(Xattr(tree + "xattr", "trusted.overlay.opaque"), "<none>");
}

void TestCapabilityAndAcl() {
  Scratch scratch;
  const std::string capability("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 20);
  // Version 2; owner rwx, user 5 r-x, group r-x, mask r-x, others none.
  const std::string acl(
      "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x05\x00\x05\x00\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff"
      "\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff",
      44);
  const std::string tar = Archive({
      {.name = "d/", .type = '5', .mode = 0750, .pax = {{"SCHILY.xattr.system.posix_acl_default", acl}}},
      {.name = "d/plain", .data = "x", .mode = 0644},
      {.name = "ping", .data = "x", .mode = 04755, .uid = 3, .pax = {{"SCHILY.xattr.security.capability", capability}}},
      {.name = "acl", .data = "x", .mode = 0750, .pax = {{"SCHILY.xattr.system.posix_acl_access", acl}}},
  });
  Exact(scratch, tar, "capability");
  CHECK_EQ(Xattr(scratch.tree() + "/ping", "security.capability"), capability);
  CHECK_EQ(Stat(scratch.tree() + "/ping").st_mode, mode_t{S_IFREG | 04755});
  CHECK_EQ(Xattr(scratch.tree() + "/acl", "system.posix_acl_access"), acl);
  CHECK_EQ(Xattr(scratch.tree() + "/d", "system.posix_acl_default"), acl);
  CHECK_EQ(Xattr(scratch.tree() + "/d/plain", "system.posix_acl_access"), "<none>");
  CHECK_EQ(Stat(scratch.tree() + "/d/plain").st_mode, mode_t{S_IFREG | 0644});
}

void TestWhiteouts() {
  const std::string tar = Archive({
      {.name = "d/", .type = '5', .mode = 0700, .uid = 4},
      {.name = "d/.wh..wh..opq"},
      {.name = "d/new", .data = "new"},
      {.name = "e/.wh.gone"},
      {.name = ".wh..wh.plnk/", .type = '5'},
      {.name = ".wh..wh.aufs", .data = "aufs"},
      {.name = "e/.wh.gone"},
  });
  Scratch scratch;
  const unpack::IngestResult result = Exact(scratch, tar, "whiteouts");
  CHECK_EQ(result.size, 3U);
  CHECK_EQ(Xattr(scratch.tree() + "/d", "trusted.overlay.opaque"), "y");
  CHECK_EQ(Stat(scratch.tree() + "/e/gone").st_mode, mode_t{S_IFCHR});
  CHECK_EQ(Stat(scratch.tree() + "/e/gone").st_rdev, 0U);
  CHECK_EQ(Stat(scratch.tree() + "/.wh..wh.plnk").st_mode, 0U);

  scratch.Fresh();
  Exact(scratch, tar, "user whiteouts", {.directory = {}, .whiteouts = tree::Whiteouts::kOverlayUser});
  CHECK_EQ(Xattr(scratch.tree() + "/d", "user.overlay.opaque"), "y");

  scratch.Fresh();
  const std::string lower = Archive({{.name = "d/old", .data = "old"},
                                     {.name = "d/sub/old", .data = "old"},
                                     {.name = "d/both/old", .data = "old"},
                                     {.name = "e/gone/deep", .data = "x"},
                                     {.name = "e/stays", .data = "x"}});
  CHECK_OK(RunIngest(lower, {.directory = scratch.tree(), .whiteouts = tree::Whiteouts::kApply}));
  const std::string upper = Archive({
      {.name = "d/both/new", .data = "new1"},
      {.name = "d/.wh..wh..opq"},
      {.name = "d/new", .data = "new"},
      {.name = "e/.wh.gone"},
      {.name = "e/.wh.never"},
  });
  const unpack::IngestResult applied =
      Exact(scratch, upper, "applied whiteouts", {.directory = {}, .whiteouts = tree::Whiteouts::kApply});
  CHECK_EQ(applied.size, 7U);
  CHECK_EQ(GiveBack(scratch).names, (std::vector<std::string>{"d/both/new", "d/.wh..wh..opq", "d/new", "e/.wh.gone"}));
  for (const char* gone : {"/d/old", "/d/sub", "/d/both/old", "/e/gone", "/e/.wh.gone"})
    CHECK_EQ(Stat(scratch.tree() + gone).st_mode, 0U);
  CHECK_EQ(ReadFile(scratch.tree() + "/d/both/new"), "new1");
  CHECK_EQ(ReadFile(scratch.tree() + "/e/stays"), "x");
}

void TestReplacement() {
  const std::string big(3000000, 'b');
  struct Case {
    const char* what;
    std::vector<Member> members;
    uint64_t size;
  };
  const Case cases[] = {
      {"file over file", {{.name = "f", .data = "one"}, {.name = "f", .data = "three"}}, 5},
      {"the same content twice", {{.name = "f", .data = "one"}, {.name = "./f", .data = "one"}}, 3},
      {"empty over empty", {{.name = "f"}, {.name = "f"}}, 0},
      {"content over empty", {{.name = "f"}, {.name = "f", .data = "one"}}, 3},
      {"directory over file",
       {{.name = "f", .data = "one"}, {.name = "f/", .type = '5'}, {.name = "f/g", .data = "two!"}},
       4},
      {"file over directory",
       {{.name = "d/", .type = '5'},
        {.name = "d/f", .data = big},
        {.name = "d/g", .data = "x"},
        {.name = "d", .data = "file"}},
       4},
      {"link over file", {{.name = "f", .data = big}, {.name = "f", .type = '2', .link = "target"}}, 6},
      {"file over link", {{.name = "f", .type = '2', .link = "/etc/passwd"}, {.name = "f", .data = "one"}}, 3},
      {"hidden by a whiteout",
       {{.name = "d/f", .data = "one"}, {.name = "d/g", .data = "two"}, {.name = "h", .data = "x"}, {.name = ".wh.d"}},
       1},
      {"back after a whiteout", {{.name = "d/f"}, {.name = ".wh.d"}, {.name = "d/f", .data = "one"}}, 3},
      {"directory after a whiteout",
       {{.name = ".wh.d"}, {.name = "d/", .type = '5'}, {.name = "d/f", .data = "one"}},
       3},
      {"hard link over its target", {{.name = "f", .data = "one"}, {.name = "f", .type = '1', .link = "f"}}, 3},
      {"one name of two replaced",
       {{.name = "f", .data = "one"}, {.name = "g", .type = '1', .link = "f"}, {.name = "f", .data = "second"}},
       9},
      {"directory twice",
       {{.name = "d/", .type = '5'}, {.name = "d/f", .data = "one"}, {.name = "d", .type = '5', .mode = 0700}},
       3},
      {"through a link",
       {{.name = "a/", .type = '5'},
        {.name = "b", .type = '2', .link = "a"},
        {.name = "b/f", .data = "one"},
        {.name = "a/f", .data = "second"}},
       7},
      {"a link turned elsewhere",
       {{.name = "a/", .type = '5'},
        {.name = "c/", .type = '5'},
        {.name = "b", .type = '2', .link = "a"},
        {.name = "b/f", .data = "one"},
        {.name = "b", .type = '2', .link = "c"},
        {.name = "b/f", .data = "second"}},
       10},
  };
  // Behind more than one block small files are filled by another thread.
  const Member before{.name = "before", .data = std::string(200'000, 'b')};
  for (const Case& one : cases) {
    for (const bool behind : {false, true}) {
      std::vector<Member> members = one.members;
      if (behind) members.insert(members.begin(), before);
      const uint64_t size = one.size + (behind ? before.data.size() : 0);
      const auto check = [&](const unpack::IngestRequest& request, const std::string& what) {
        Scratch scratch;
        const unpack::IngestResult result = Exact(scratch, Archive(members), what, request);
        Report(result.size == size, __FILE__, __LINE__, what + ": size " + std::to_string(result.size));
      };
      check({}, one.what);
      check({.directory = {}, .force_component_walk = true}, std::string(one.what) + ", by components");
      if (std::string_view(one.what).find("whiteout") != std::string_view::npos) continue;
      check({.directory = {}, .whiteouts = tree::Whiteouts::kApply}, std::string(one.what) + ", applied");
    }
  }
  Scratch scratch;
  Exact(scratch, Archive(cases[10].members), "opaque");
  CHECK_EQ(Xattr(scratch.tree() + "/d", "trusted.overlay.opaque"), "y");
}

void TestUnreadable() {
  Scratch scratch;
  Member global{.name = "pax_global_header", .type = 'g', .data = PaxRecord("comment", "x")};
  // A 0.1 sparse file: 4 bytes at 100000 of 200000.
  const Member sparse{.name = "GNUSparseFile.0/s",
                      .data = "data",
                      .pax = {{"GNU.sparse.size", "200000"},
                              {"GNU.sparse.numblocks", "1"},
                              {"GNU.sparse.map", "100000,4"},
                              {"GNU.sparse.name", "s"}}};
  const std::string tar = Archive({global,
                                   sparse,
                                   global,
                                   {.name = "linked", .type = '1', .link = "s", .size = 77},
                                   {.name = "dir/", .type = '5', .size = 5},
                                   {.name = "f", .data = "x"}}) +
                          std::string(2'500'000, 'T');
  const unpack::IngestResult result = Exact(scratch, tar, "unreadable");
  CHECK_EQ(result.size, 200001U);
  const std::string content = ReadFile(scratch.tree() + "/s");
  CHECK_EQ(content.size(), 200000U);
  CHECK_EQ(content.substr(100000, 4), "data");
  CHECK(Stat(scratch.tree() + "/s").st_blocks < 100);
  const std::vector<std::string> names = GiveBack(scratch).names;
  CHECK_EQ(names, std::vector<std::string>{"f"});
}

// The record names what Docker's would, each name once.
void TestRecordedNames() {
  Scratch scratch;
  const std::vector<Member> members = {
      {.name = "a/b/f", .data = "x"}, {.name = "a/", .type = '5'}, {.name = "a/b/", .type = '5'},
      {.name = "a/", .type = '5'},    {.name = "a/.wh.x"},         {.name = "a/.wh..wh..opq"}};
  const std::vector<std::string> names = {"a/b/f", "a/", "a/b/", "a/.wh.x", "a/.wh..wh..opq"};
  Exact(scratch, Archive(members), "implied, then named");
  CHECK_EQ(GiveBack(scratch).names, names);
  scratch.Fresh();
  CHECK_OK(RunIngest(Archive({{.name = "a/b/lower", .data = "y"}, {.name = "a/x", .data = "y"}}),
                     {.directory = scratch.tree(), .whiteouts = tree::Whiteouts::kApply}));
  Exact(scratch, Archive(members), "named over a parent's", {.directory = {}, .whiteouts = tree::Whiteouts::kApply});
  CHECK_EQ(GiveBack(scratch).names, names);
}

// What no entry names is 0755, with the group and the setgid bit of its parent: the JavaScript engine makes the same.
void TestImpliedModes() {
  Scratch scratch;
  Exact(scratch, Archive({{.name = "d/", .type = '5', .mode = 02750, .gid = 5}, {.name = "d/e/f/g"}, {.name = "x/y"}}),
        "implied below a setgid directory");
  for (const char* path : {"/d/e", "/d/e/f"}) {
    const struct stat info = Stat(scratch.tree() + path);
    CHECK_EQ(info.st_mode & 07777U, 02755U);
    CHECK_EQ(info.st_gid, 5U);
  }
  CHECK_EQ(Stat(scratch.tree() + "/x").st_mode & 07777U, 0755U);
}

void TestSamples() {
  const std::vector<std::string> refused = {"issue10968.tar", "neg-size.tar", "pax-bad-hdr-file.tar"};
  size_t count = 0;
  for (const auto& item : std::filesystem::directory_iterator(kSamples)) {
    const std::string name = item.path().filename();
    if (name == "README.md") continue;
    count++;
    const std::string bytes = ReadFile(item.path());
    MemorySource source(bytes);
    auto decoder = codec::Decoder::Open(source, {});
    CHECK_OK(decoder);
    std::string tar;
    std::vector<uint8_t> buffer(65536);
    while (true) {
      auto read = (*decoder)->Read(buffer);
      CHECK_OK(read);
      if (!read.ok() || *read == 0) break;
      tar.append(reinterpret_cast<const char*>(buffer.data()), *read);
    }
    for (const bool walk : {false, true}) {
      Scratch scratch;
      if (std::find(refused.begin(), refused.end(), name) == refused.end()) {
        Exact(scratch, tar, name, {.directory = {}, .force_component_walk = walk});
        continue;
      }
      auto result = RunIngest(tar, RequestFor(scratch));
      Report(!result.ok() && result.error().fault == Fault::kBadTar, __FILE__, __LINE__, name + " is not refused");
      CHECK(Tidy(scratch, false));
    }
  }
  CHECK(count >= 28);
}

void TestCorpus() {
  const char* corpus = std::getenv("LAYERSTORE_CORPUS");
  if (corpus == nullptr) return;
  for (const auto& item : std::filesystem::directory_iterator(std::string(corpus) + "/layers")) {
    Scratch scratch;
    Exact(scratch, ReadFile(item.path()), item.path());
  }
}

void TestEnds() {
  Scratch scratch;
  CHECK_EQ(Exact(scratch, "", "empty source").entries, 0U);
  scratch.Fresh();
  CHECK_EQ(Exact(scratch, std::string(1024, '\0'), "empty tar").entries, 0U);
  // Cut at every block: complete between two entries, and after headers and files that are whole.
  const std::string tar = Archive({{.name = "a", .data = std::string(700, 'a')},
                                   {.name = "b/", .type = '5'},
                                   {.name = "c", .data = "c", .pax = {{"mtime", "5"}}}});
  const std::vector<size_t> whole = {0, 1536, 2048, 3072, 4096, 4608, 5120};
  for (size_t at = 0; at <= tar.size(); at += 512) {
    for (const size_t cut : {at, at + 100}) {
      if (cut > tar.size()) continue;
      scratch.Fresh();
      auto result = RunIngest(tar.substr(0, cut), RequestFor(scratch));
      // Inside the padding of a file the file is whole.
      const bool padding = cut == 1124 + 100 || cut == 2660 || cut == 3684;
      const bool good = std::find(whole.begin(), whole.end(), cut) != whole.end() || padding;
      Report(result.ok() == good, __FILE__, __LINE__,
             "cut at " + std::to_string(cut) + (result.ok() ? " accepted" : " refused: " + Describe(result.error())));
      if (!result.ok()) CHECK_EQ(result.error().fault, Fault::kBadTar);
      CHECK(Tidy(scratch, result.ok()));
      if (result.ok()) CHECK_EQ(GiveBack(scratch).tar, tar.substr(0, cut));
    }
  }
  // However the source chops its bytes.
  for (const size_t step : {size_t{1}, size_t{511}, size_t{513}}) {
    scratch.Fresh();
    CHECK_OK(RunIngest(tar, RequestFor(scratch), step));
    CHECK_EQ(GiveBack(scratch).tar, tar);
  }
}

}  // namespace

// What a maker without full privilege leaves out is in the record alone; root can make devices whatever it is asked.
void TestPrivileges() {
  const std::string tar = Archive({
      {.name = "su", .data = "x", .mode = 04755, .uid = 7, .gid = 8},
      {.name = "sealed", .data = "x", .mode = 0},
      {.name = "closed/", .type = '5', .mode = 0500},
      {.name = "attr", .data = "x", .pax = {{"SCHILY.xattr.user.a", "1"}, {"SCHILY.xattr.trusted.b", "2"}}},
  });
  for (const tree::Privilege privilege : {tree::Privilege::kNamespace, tree::Privilege::kNone}) {
    Scratch scratch;
    unpack::IngestRequest request;
    request.privilege = privilege;
    const unpack::IngestResult result = Exact(scratch, tar, "privileges", request);
    const std::string tree = scratch.tree() + "/";
    const bool none = privilege == tree::Privilege::kNone;
    CHECK_EQ(result.ignored_xattrs, 1U);
    CHECK_EQ(result.ignored_owners, none ? 4U : 0U);
    CHECK_EQ(Stat(tree + "su").st_uid, none ? geteuid() : 7U);
    CHECK_EQ(Stat(tree + "su").st_mode, mode_t{S_IFREG} | (none ? 0755U : 04755U));
    CHECK_EQ(Stat(tree + "sealed").st_mode, mode_t{S_IFREG} | (none ? 0400U : 0U));
    CHECK_EQ(Stat(tree + "closed").st_mode, mode_t{S_IFDIR} | (none ? 0700U : 0500U));
    for (const tree::Privilege reader : {privilege, tree::Privilege::kFull}) {
      const auto problems = tree::VerifyTree(
          {scratch.record(), scratch.tree(), tree::Whiteouts::kOverlay, reader, result.diff_id, 0}, CancelToken());
      CHECK(problems.ok() && problems->empty() == (reader == privilege));
    }
  }
}

int main() {
  const size_t descriptors = OpenDescriptors();
  CHECK_OK(sys::Thread::Start([] {}));  // with the first thread sanitizers start their own
  const size_t threads = Threads();
  TestTypes();
  TestCapabilityAndAcl();
  TestWhiteouts();
  TestReplacement();
  TestUnreadable();
  TestRecordedNames();
  TestImpliedModes();
  TestPrivileges();
  TestSamples();
  TestEnds();
  TestCorpus();
  CHECK_EQ(OpenDescriptors(), descriptors);
  CHECK_EQ(Threads(), threads);
  return Finish();
}
