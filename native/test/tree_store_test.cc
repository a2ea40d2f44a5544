// A layer's way in and out: what Ingest stored is given back byte for byte, damage is found and named, a commit is what
// Ingest would have made of the same tar. Real layers are read where LAYERSTORE_CORPUS names a directory of them.

#include "codec/decoder.h"
#include "codec/encoder.h"
#include "pack/pack.h"
#include "sys/fd_io.h"
#include "tarsplit/reader.h"
#include "test/tree_support.h"
#include "tree/verify.h"
#include "unpack/ingest.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

const CancelToken kNever;

std::string Unzip(const std::string& path) {
  auto source = sys::FdSource::Open(path);
  CHECK_OK(source);
  auto decoder = codec::Decoder::Open(**source, {});
  CHECK_OK(decoder);
  std::string text;
  std::vector<uint8_t> buffer(65536);
  for (;;) {
    auto got = (*decoder)->Read(buffer);
    CHECK_OK(got);
    if (!got.ok() || *got == 0) return text;
    text.append(reinterpret_cast<const char*>(buffer.data()), *got);
  }
}

void Zip(const std::string& path, const std::string& text) {
  StringSink sink;
  auto writer = codec::GzipWriter::Open(sink);
  CHECK_OK(writer);
  CHECK_OK((*writer)->Write(Bytes(text)));
  CHECK_OK((*writer)->Finish());
  Put(path, sink.text);
}

Result<unpack::IngestResult> Register(const std::string& tar, const std::string& directory, const std::string& record) {
  MemorySource source(tar);
  unpack::IngestRequest request;
  request.directory = directory;
  request.tar_split_path = record;
  Progress progress;
  return unpack::Ingest(source, request, progress, kNever);
}

void FillUpper(const std::string& root) {
  CHECK(mkdir((root + "/dir").c_str(), 01755) == 0);
  CHECK(chmod((root + "/dir").c_str(), 01755) == 0);
  Put(root + "/dir/file", "content of a file", 04755);
  Put(root + "/dir-between", "sorts between dir and dir/file");
  Put(root + "/empty", "");
  CHECK(link((root + "/dir/file").c_str(), (root + "/z-link").c_str()) == 0);
  CHECK(symlink("dir/file", (root + "/symlink").c_str()) == 0);
  CHECK(mknod((root + "/gone").c_str(), S_IFCHR, 0) == 0);
  CHECK(mkdir((root + "/opaque").c_str(), 0700) == 0);
  CHECK(lsetxattr((root + "/opaque").c_str(), "trusted.overlay.opaque", "y", 1, 0) == 0);
  Put(root + "/opaque/!first", "before the marker's own name");
  CHECK(lsetxattr((root + "/dir/file").c_str(), "user.b", "2", 1, 0) == 0);
  CHECK(lsetxattr((root + "/dir/file").c_str(), "user.a", "1", 1, 0) == 0);
  CHECK(mkdir((root + "/" + std::string(150, 'd')).c_str(), 0755) == 0);
  Put(root + "/" + std::string(150, 'd') + "/" + std::string(200, 'f'), "long");
  CHECK(symlink(std::string(150, 't').c_str(), (root + "/long-link").c_str()) == 0);
  Put(root + "/raw-\xff", "raw");
  const int fd = open((root + "/holes").c_str(), O_WRONLY | O_CREAT, 0644);
  CHECK(ftruncate(fd, 3 << 20) == 0);
  CHECK(pwrite(fd, "data", 4, 1 << 20) == 4);
  close(fd);
  SetTime(root + "/empty", -1, 0);
  CHECK(mknod((root + "/socket").c_str(), S_IFSOCK | 0600, 0) == 0);
}

tree::DiffRequest UpperOn(const std::string& upper, const std::string& lower) {
  tree::DiffRequest request;
  request.upper = {{upper}, tree::Whiteouts::kOverlay};
  request.lower = {{lower}, tree::Whiteouts::kOverlay};
  return request;
}

void SealIsIngestOfTheTar() {
  const Scratch scratch;
  const std::string upper = scratch.Dir("upper"), lower = scratch.Dir("lower");
  FillUpper(upper);
  StringSink tar;
  CHECK_OK(pack::WriteTreeTar(UpperOn(upper, lower), tar, kNever));
  Put(scratch / "tar", tar.text);
  auto ingested = Register(tar.text, scratch.Dir("ingested"), scratch / "ingested.gz");
  CHECK_OK(ingested);
  pack::CommitTreeRequest request;
  request.diff = UpperOn(upper, lower);
  request.directory = scratch.Dir("sealed");
  request.tar_split_path = scratch / "sealed.gz";
  Progress progress;
  auto sealed = pack::CommitTree(request, progress, kNever);
  CHECK_OK(sealed);
  CHECK(sealed->diff_id == ingested->diff_id);
  CHECK_EQ(sealed->size, ingested->size);
  CHECK_EQ(sealed->entries, ingested->entries);
  CHECK_EQ(sealed->tar_size, ingested->tar_size);
  CHECK(Unzip(scratch / "sealed.gz") == Unzip(scratch / "ingested.gz"));
  CHECK(SameTree(ReadTree(request.directory), ReadTree(scratch / "ingested")));
  struct stat st {};
  CHECK(stat((request.directory + "/holes").c_str(), &st) == 0 && st.st_blocks < 1000);
  CHECK(tar.text.find("dir-between") < tar.text.find("dir/file"));
  CHECK(tar.text.find("opaque/.wh..wh..opq") < tar.text.find("opaque/!first"));
  auto size = tree::DiffSize(UpperOn(upper, lower), kNever);
  CHECK_OK(size);
  // A socket has no data, and no part in the tar.
  CHECK_EQ(*size, sealed->size);

  // The sparse form, read by the ingest of this package, gives the same tree.
  tree::DiffRequest sparse = UpperOn(upper, lower);
  sparse.sparse = true;
  StringSink small;
  CHECK_OK(pack::WriteTreeTar(sparse, small, kNever));
  CHECK(small.text.size() < tar.text.size() / 10);
  CHECK_OK(Register(small.text, scratch.Dir("sparse"), scratch / "sparse.gz"));
  CHECK(SameTree(ReadTree(scratch / "sparse"), ReadTree(scratch / "ingested")));

  // An existing record is never written over.
  request.directory = scratch.Dir("again");
  auto again = pack::CommitTree(request, progress, kNever);
  CHECK(!again.ok() && again.error().err == EEXIST);
}

struct Stored {
  std::string directory, record;
  unpack::IngestResult result;
};

Stored Store(const Scratch& scratch, const std::string& name) {
  const std::string upper = scratch.Dir(name + "-upper");
  FillUpper(upper);
  StringSink tar;
  CHECK_OK(pack::WriteTreeTar(UpperOn(upper, upper), tar, kNever));
  Stored stored{scratch.Dir(name), scratch / (name + ".gz"), {}};
  auto result = Register(tar.text, stored.directory, stored.record);
  CHECK_OK(result);
  stored.result = *result;
  return stored;
}

std::string Problems(const Stored& stored) {
  auto problems = tree::VerifyTree(
      {stored.record, stored.directory, tree::Whiteouts::kOverlay, tree::Privilege::kFull, stored.result.diff_id, 0},
      kNever);
  CHECK_OK(problems);
  if (!problems.ok()) return "";
  std::string text;
  for (const tree::TreeProblem& problem : *problems) {
    text += problem.path + ": " + problem.what + (problem.cosmetic ? " (cosmetic)" : "") + "\n";
  }
  return text;
}

void DamageIsNamed() {
  const Scratch scratch;
  const Stored stored = Store(scratch, "layer");
  const std::string root = stored.directory + "/";
  Expect(Problems(stored), "", __LINE__);
  const auto assemble = [&] {
    StringSink sink;
    auto summary = pack::Assemble({stored.record, stored.directory, stored.result.diff_id}, sink, kNever);
    return summary.ok() ? std::string()
                        : std::to_string(static_cast<int>(summary.error().fault)) + " " + summary.error().path + " " +
                              summary.error().detail.substr(0, 5);
  };
  const std::string corrupt = std::to_string(static_cast<int>(Fault::kCorrupt)) + " ";
  Expect(assemble(), "", __LINE__);

  struct stat st {};
  CHECK(lstat((root + "dir-between").c_str(), &st) == 0);
  const auto touch = [&](const std::string& name) {
    const struct timespec times[2] = {st.st_mtim, st.st_mtim};
    CHECK(utimensat(AT_FDCWD, (root + name).c_str(), times, AT_SYMLINK_NOFOLLOW) == 0);
  };
  const std::string content = Get(root + "dir-between");
  Put(root + "dir-between", "S" + content.substr(1));
  touch("dir-between");
  Expect(Problems(stored), "dir-between: content\n", __LINE__);
  Expect(assemble(), corrupt + "dir-between crc64", __LINE__);
  Put(root + "dir-between", content + "x");
  touch("dir-between");
  Expect(Problems(stored), "dir-between: size\n", __LINE__);
  Expect(assemble(), corrupt + "dir-between size ", __LINE__);
  CHECK(unlink((root + "dir-between").c_str()) == 0);
  CHECK(symlink("/etc/passwd", (root + "dir-between").c_str()) == 0);
  Expect(assemble(), corrupt + "dir-between no re", __LINE__);
  CHECK(unlink((root + "dir-between").c_str()) == 0);
  CHECK(mknod((root + "dir-between").c_str(), S_IFIFO | 0644, 0) == 0);
  Expect(assemble(), corrupt + "dir-between no re", __LINE__);
  CHECK(unlink((root + "dir-between").c_str()) == 0);
  Expect(Problems(stored), "dir-between: missing\n", __LINE__);
  Expect(assemble(), corrupt + "dir-between the f", __LINE__);
  Put(root + "dir-between", content);
  Expect(Problems(stored), "dir-between: mtime (cosmetic)\n", __LINE__);
  touch("dir-between");
  Expect(Problems(stored), "", __LINE__);

  CHECK(chmod((root + "empty").c_str(), 0600) == 0);
  CHECK(lchown((root + "long-link").c_str(), 5, 6) == 0);
  CHECK(lsetxattr((root + "dir/file").c_str(), "user.a", "X", 1, 0) == 0);
  CHECK(unlink((root + "gone").c_str()) == 0);
  CHECK(lremovexattr((root + "opaque").c_str(), "trusted.overlay.opaque") == 0);
  Put(root + "intruder", "x");
  CHECK(unlink((root + "z-link").c_str()) == 0);
  Put(root + "z-link", "content of a file");
  // What stands alone is told as its entry is read, what an inode keeps at the end: the last entry that leads to it
  // counts.
  Expect(Problems(stored),
         "gone: whiteout\nopaque/.wh..wh..opq: opaque\nz-link: hard link\ndir/file: xattr user.a\nempty: mode\n"
         "long-link: owner\nz-link: mode\nz-link: mtime (cosmetic)\nintruder: extra\n",
         __LINE__);
}

void RecordsAreHostile() {
  const Scratch scratch;
  const std::string tree = scratch.Dir("tree");
  Put(tree + "/f", "12345");
  Put(scratch / "outside", "12345");
  const std::string record = scratch / "record.gz";
  const std::string good = R"({"type":1,"name":"f","size":5,"payload":"HJhh/9chPaA=","position":0})";
  const std::vector<std::string> bad = {
      "x",
      "{",
      "[]",
      "{}",
      "null",
      R"({"type":3,"payload":"","position":0})",
      R"({"type":-1,"payload":"","position":0})",
      R"({"type":1,"name":"f","size":-5,"payload":"AAAAAAAAAAA=","position":0})",
      R"({"type":1,"name":"f","size":99999999999999999999999,"payload":"AAAAAAAAAAA=","position":0})",
      R"({"type":1,"name":"f","size":5,"payload":"AAAA","position":0})",
      R"({"type":1,"name":"f","size":5,"payload":null,"position":0})",
      R"({"type":2,"payload":"!!!!","position":0})",
      R"({"type":2,"payload":"AAA","position":0})",
      R"({"type":2,"payload":"A===","position":0})",
      R"({"type":1,"name_raw":"*","size":5,"payload":"AAAAAAAAAAA=","position":0})",
      R"({"type":1,"name":"../outside","size":5,"payload":"AAAAAAAAAAA=","position":0})",
      R"({"type":1,"name":"a/../../outside","size":5,"payload":"AAAAAAAAAAA=","position":0})",
      R"({"type":1,"name":"","size":5,"payload":"AAAAAAAAAAA=","position":0})",
      R"({"type":1,"name":"f\u0000","size":5,"payload":"AAAAAAAAAAA=","position":0})",
      R"({"type":1,"name":"\ud800","size":5,"payload":"AAAAAAAAAAA=","position":0})",
      R"({"type":1,"name":"f\q","size":5,"payload":"AAAAAAAAAAA=","position":0})",
      R"({"type":1,"name":"f)",
      good + "x",
      good.substr(0, 40),
      R"({"type":1,"name":"f","size":5,"nested":{},"payload":"AAAAAAAAAAA=","position":0})",
      std::string(tarsplit::Reader::kMaxLineBytes + 2, ' '),
  };
  for (const std::string& line : bad) {
    Zip(record, line + "\n");
    StringSink sink;
    auto summary = pack::Assemble({record, tree, {}}, sink, kNever);
    Report(!summary.ok() && summary.error().fault == Fault::kCorrupt, __FILE__, __LINE__, line.substr(0, 100));
    Report(sink.text.empty(), __FILE__, __LINE__, "bytes of " + line.substr(0, 100));
    auto problems = tree::VerifyTree({record, tree, tree::Whiteouts::kOverlay, tree::Privilege::kFull, {}, 0}, kNever);
    Report(problems.ok() && !problems->empty(), __FILE__, __LINE__, "verify " + line.substr(0, 100));
  }
  // Not gzip, cut gzip, nothing, a directory.
  Zip(record, good + "\n");
  const std::string whole = Get(record);
  for (size_t cut = 3; cut < whole.size(); cut += 5) {
    Put(record, whole.substr(0, cut));
    StringSink sink;
    CHECK(!pack::Assemble({record, tree, {}}, sink, kNever).ok());
  }
  StringSink sink;
  CHECK(pack::Assemble({scratch / "nowhere", tree, {}}, sink, kNever).error().err == ENOENT);

  // Keys in any order, unknown keys, escapes, blanks, no newline at the end; name_raw beats name.
  for (
      const std::string& line :
      {std::string(
           R"( { "position" : 7 , "other":"q\"","x":-1.5e3,"y":true, "payload":null,"name":"\u0066\ud83d\ude00\/","type":1 } )"),
       std::string(R"({"name":"wrong","name_raw":"Zv8=","type":1,"payload":null,"position":0})")}) {
    MemorySource source(line, 3);
    tarsplit::Reader reader(source);
    tarsplit::Entry entry;
    auto more = reader.Next(entry);
    CHECK_OK(more);
    CHECK(entry.name == "f\xf0\x9f\x98\x80/" || entry.name == "f\xff");
    more = reader.Next(entry);
    CHECK(more.ok() && !*more);
  }
}

// Real layers, one after the other, given back exactly and found undamaged.
void Corpus() {
  const char* corpus = std::getenv("LAYERSTORE_CORPUS");
  if (corpus == nullptr) return;
  for (const auto& item : std::filesystem::directory_iterator(std::string(corpus) + "/layers")) {
    const Scratch scratch;
    auto source = sys::FdSource::Open(item.path().string());
    CHECK_OK(source);
    unpack::IngestRequest request;
    request.directory = scratch.Dir("tree");
    request.tar_split_path = scratch / "record.gz";
    Progress progress;
    auto result = unpack::Ingest(**source, request, progress, kNever);
    CHECK_OK(result);
    const int fd = open((scratch / "tar").c_str(), O_WRONLY | O_CREAT, 0600);
    sys::FdSink sink(fd);
    auto summary = pack::Assemble({request.tar_split_path, request.directory, result->diff_id}, sink, kNever);
    CHECK_OK(summary);
    close(fd);
    CHECK_EQ(summary->bytes, std::filesystem::file_size(item.path()));
    const std::string problems = Problems({request.directory, request.tar_split_path, *result});
    Expect(problems, "", __LINE__);
    auto usage = tree::Usage(request.directory, kNever);
    CHECK_OK(usage);
    CHECK_EQ(usage->size, result->size);
    CHECK_OK(tree::CopyTree(request.directory, scratch.Dir("copy"), kNever));
    CHECK(SameTree(ReadTree(request.directory), ReadTree(scratch / "copy")));
  }
}

}  // namespace

int main() {
  SealIsIngestOfTheTar();
  DamageIsNamed();
  RecordsAreHostile();
  Corpus();
  return Finish();
}
