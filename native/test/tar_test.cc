// Header fields, PAX records, sparse maps, and the lines of a tar-split record, each as a table.
#include <algorithm>

#include "tar/header.h"
#include "tar/pax.h"
#include "tar/reader.h"
#include "tarsplit/packer.h"
#include "test/check.h"
#include "test/tar_build.h"
#include "unpack/entry_name.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

void TestNumeric() {
  struct Case {
    std::string field;
    std::optional<int64_t> value;
  };
  const Case cases[] = {
      {"", 0},
      {std::string("\0\0\0", 3), 0},
      {"   ", 0},
      {"0000644", 0644},
      {" 644 ", 0644},
      {std::string("644\0 8", 6), 0644},
      {"648", std::nullopt},
      {"-1", std::nullopt},
      {"1777777777777777777777", -1},
      {"2000000000000000000000", std::nullopt},
      {"\x80", 0},
      {std::string("\x80\0\0\0\x01\x02", 6), 0x102},
      {"\xff\xff", -1},
      {"\xff\xfe", -2},
      {"\xbf", 63},
      {"\xc0", -64},
      {std::string("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12), INT64_MAX},
      {std::string("\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12), std::nullopt},
      {"\xff\xff\xff\xff\x80\x01\x01\x01\x01\x01\x01\x01", INT64_MIN + 0x0001010101010101},
      {"\xff\xff\xff\x7f\x80\x01\x01\x01\x01\x01\x01\x01", std::nullopt},
  };
  for (const Case& one : cases) CHECK_EQ(tar::ParseNumeric(Bytes(one.field)), one.value);
  for (const char* bad : {"", "+", "-", "1x", " 1", "99999999999999999999", "+-1"})
    CHECK(!tar::ParseDecimal(bad).has_value());
  CHECK_EQ(tar::ParseDecimal("+12"), 12);
  CHECK_EQ(tar::ParseDecimal("-12"), -12);
}

tar::Block Block(const std::string& block) { return tar::Block(Bytes(block)); }

void TestHeader() {
  Member member{.name = "name", .data = "x", .uid = 1, .gid = 2};
  const auto with = [&](size_t at, const std::string& bytes, const std::string& magic) {
    member.magic = magic;
    std::string block = Header(member, 1);
    block.replace(at, bytes.size(), bytes);
    SetChecksum(block);
    return block;
  };
  const std::string ustar(
      "ustar\0"
      "00",
      8);
  const std::string gnu("ustar  \0", 8);
  struct Case {
    std::string block;
    tar::Format format;
    std::string name;  // "!": refused
  };
  const Case cases[] = {
      {with(345, "pre/fix", ustar), tar::Format::kUstar, "pre/fix/name"},
      {with(345, "prefix", std::string(8, '\0')), tar::Format::kV7, "name"},
      {with(345, std::string("01234567\0", 9), gnu), tar::Format::kGnu, "name"},
      {with(345, "prefix", gnu), tar::Format::kGnu, "prefix/name"},
      {with(508, std::string("tar\0", 4), ustar), tar::Format::kStar, "name"},
      {with(124, "x", ustar), tar::Format::kUstar, "!"},
      {with(124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", gnu), tar::Format::kGnu, "!"},
      {with(329, "9", ustar), tar::Format::kUstar, "!"},
      {with(329, "9", std::string(8, '\0')), tar::Format::kV7, "name"},
  };
  for (const Case& one : cases) {
    CHECK(tar::DetectFormat(Block(one.block)) == one.format);
    tar::Entry entry;
    auto parsed = tar::ParseHeaderBlock(Block(one.block), one.format, entry);
    CHECK_EQ(parsed.ok(), one.name != "!");
    if (parsed.ok()) CHECK_EQ(entry.name, one.name);
  }
  std::string broken = cases[0].block;
  broken[0] = 'N';
  CHECK(tar::DetectFormat(Block(broken)) == tar::Format::kUnknown);
}

void TestPax() {
  for (const char* bad :
       {"5", "x a=b\n", "6 a=b", "6 a=b\n7", "99 a=b\n", "5 =b\n", "4 a\n", "6 ab \n", "0 a=b\n", "-6 a=b\n"}) {
    CHECK(!tar::ParsePax(bad).ok());
  }
  CHECK(!tar::ParsePax(PaxRecord("path", std::string("a\0b", 3))).ok());
  CHECK(!tar::ParsePax(PaxRecord("GNU.sparse.numbytes", "1")).ok());
  CHECK(!tar::ParsePax(PaxRecord("GNU.sparse.offset", "1,2")).ok());
  CHECK_OK(tar::ParsePax(PaxRecord("SCHILY.xattr.user.a", std::string("a\0\n=", 4))));
  struct Case {
    const char *key, *value;
    bool good;
    int64_t seconds;
    uint32_t nanoseconds;
  };
  const Case cases[] = {
      {"mtime", "1.5", true, 1, 500000000},
      {"mtime", "1.0000000019", true, 1, 1},
      {"mtime", "-1.5", true, -2, 500000000},
      {"mtime", "-0.5", true, -1, 500000000},
      {"mtime", "1.", true, 1, 0},
      {"mtime", "", true, 0, 0},
      {"mtime", "1.x", false, 0, 0},
      {"mtime", "x", false, 0, 0},
      {"mtime", ".5", false, 0, 0},
      {"atime", "x", false, 0, 0},
      {"uid", "x", false, 0, 0},
      {"size", "-1", false, 0, 0},
  };
  for (const Case& one : cases) {
    auto records = tar::ParsePax(PaxRecord(one.key, one.value));
    CHECK_OK(records);
    tar::Entry entry;
    CHECK_EQ(tar::MergePax(*records, {10, 1000}, entry).ok(), one.good);
    if (!one.good) continue;
    CHECK_EQ(entry.mtime_seconds, one.seconds);
    CHECK_EQ(entry.mtime_nanoseconds, one.nanoseconds);
  }
  auto xattrs = tar::ParsePax(PaxRecord("SCHILY.xattr.user.a", "12345") + PaxRecord("SCHILY.xattr.user.b", "1"));
  tar::Entry entry;
  auto over = tar::MergePax(*xattrs, {1, 1000}, entry);
  CHECK(!over.ok() && over.error().detail == "maxXattrs");
  entry = {};
  over = tar::MergePax(*xattrs, {2, 17}, entry);
  CHECK(!over.ok() && over.error().detail == "maxXattrBytes");
  entry = {};
  CHECK_OK(tar::MergePax(*xattrs, {2, 18}, entry));
}

void TestSparse() {
  CHECK_OK(tar::CheckSparse({}, 100, 0));
  CHECK_OK(tar::CheckSparse({{0, 5}, {5, 5}, {100, 0}}, 100, 10));
  CHECK(!tar::CheckSparse({{0, 5}}, 100, 6).ok());
  CHECK(!tar::CheckSparse({{5, 5}, {0, 5}}, 100, 10).ok());
  CHECK(!tar::CheckSparse({{96, 5}}, 100, 5).ok());
  CHECK(!tar::CheckSparse({{INT64_MAX, 5}}, INT64_MAX, 5).ok());
  CHECK(!tar::CheckSparse({{UINT64_MAX, 1}}, INT64_MAX, 1).ok());
}

class WholeInput final : public tar::Input {
 public:
  WholeInput(std::string_view text, size_t step) : left_(Bytes(text)), step_(step) {}
  Result<std::span<const uint8_t>> Take(size_t max) override {
    const auto bytes = left_.first(std::min({max, step_, left_.size()}));
    left_ = left_.subspan(bytes.size());
    return bytes;
  }

 private:
  std::span<const uint8_t> left_;
  size_t step_;
};

// Every entry as "name>link:size:regions", then the fault if there is one.
std::string Read(const std::string& tar, size_t step = SIZE_MAX,
                 tar::ReaderLimits limits = {1 << 20, {1024, 1 << 20}}) {
  WholeInput input(tar, step);
  tar::Reader reader(input, limits);
  tar::Entry entry;
  std::string out;
  while (true) {
    auto next = reader.Next(entry);
    if (!next.ok())
      return out + "!" + std::to_string(static_cast<int>(next.error().fault)) +
             (next.error().fault == Fault::kLimit ? next.error().detail : "");
    if (*next == tar::Reader::Step::kEnd) return out;
    out += *next == tar::Reader::Step::kGlobal ? "global"
                                               : entry.name + ">" + entry.link_name + ":" + std::to_string(entry.size);
    for (const tar::SparseRegion& region : entry.regions)
      out += ":" + std::to_string(region.offset) + "+" + std::to_string(region.length);
    out += ";";
  }
}

void TestReader() {
  const Member pax{.name = "short", .type = '2', .pax = {{"path", "long"}, {"linkpath", "target"}}};
  const Member long_name{.name = "././@LongLink", .type = 'L', .data = std::string("gnu name\0junk", 13)};
  const Member long_link{.name = "././@LongLink", .type = 'K', .data = "gnu link"};
  const Member old_style_dir{.name = "dir/", .type = '\0'};
  Member global{.name = "g", .type = 'g', .data = PaxRecord("path", "never")};
  const Member map_in_data{.name = "x",
                           .data = Pad("2\n0\n3\n10\n2\n") + "abcde",
                           .pax = {{"GNU.sparse.major", "1"},
                                   {"GNU.sparse.minor", "0"},
                                   {"GNU.sparse.name", "s"},
                                   {"GNU.sparse.realsize", "20"}}};
  const Member in_records{.name = "x",
                          .data = "abc",
                          .pax = {{"GNU.sparse.size", "20"},
                                  {"GNU.sparse.numblocks", "1"},
                                  {"GNU.sparse.offset", "7"},
                                  {"GNU.sparse.numbytes", "3"}}};
  struct Case {
    std::vector<Member> members;
    std::string expected;
  };
  const Case cases[] = {
      {{pax}, "long>target:0;"},
      {{long_name, long_link, {.name = "n", .type = '2', .link = "l"}}, "gnu name>gnu link:0;"},
      {{old_style_dir, global, {.name = "a", .data = "b"}}, "dir/>:0;global;a>:1;"},
      {{map_in_data, {.name = "a"}}, "s>:20:0+3:10+2;a>:0;"},
      {{in_records, {.name = "a"}}, "x>:20:7+3;a>:0;"},
      {{{.name = "h", .type = '1', .link = "a", .size = 4096}, {.name = "a"}}, "h>a:4096;a>:0;"},
      {{{.name = "a", .data = "data", .pax = {{"size", "2"}}}}, "a>:2;"},
  };
  for (const Case& one : cases) {
    const std::string tar = Archive(one.members);
    for (const size_t step : {size_t{1}, size_t{500}, SIZE_MAX}) CHECK_EQ(Read(tar, step), one.expected);
  }
  const std::string bad = "!" + std::to_string(static_cast<int>(Fault::kBadTar));
  const std::string limit = "!" + std::to_string(static_cast<int>(Fault::kLimit)) + "maxHeaderBytes";
  CHECK_EQ(Read(Archive({{.name = "x", .data = Pad("2\n0\n3\n10\n3\n") + "abcde", .pax = map_in_data.pax}})), bad);
  CHECK_EQ(Read(Archive({{.name = "x", .type = '5', .pax = in_records.pax}})), bad);
  CHECK_EQ(Read(Archive({{.name = "x", .type = 'S'}})), bad);
  CHECK_EQ(Read(std::string(512, '\0') + Entry({.name = "a"})), bad);
  CHECK_EQ(Read(std::string(512, '\0')), "");
  CHECK_EQ(Read(std::string(600, '\0')), bad);
  Member big = long_name;
  big.data = std::string(5000, 'n');
  CHECK_EQ(Read(Archive({big, {.name = "a"}}), SIZE_MAX, {4096, {1, 1}}), limit);
  // Many small extension headers of one entry are bounded together.
  CHECK_EQ(Read(Archive(std::vector<Member>(20, long_name)), SIZE_MAX, {4096, {1, 1}}), limit);
}

void TestRecordLines() {
  StringSink sink;
  tarsplit::Packer packer(sink);
  CHECK_OK(packer.AddSegment(Bytes("abcd")));
  CHECK_OK(packer.AddFile("a<b>&\"\\\n\x01\u2028\u00e9", 9, 0xb90956c775a41001));
  CHECK_OK(packer.AddFile("dir/", 0, std::nullopt));
  CHECK_OK(packer.AddFile("\xff", 0, std::nullopt));
  CHECK_OK(packer.AddFile("", 0, std::nullopt));
  CHECK_OK(packer.AddSegment({}));
  CHECK_EQ(sink.text,
           "{\"type\":2,\"payload\":\"YWJjZA==\",\"position\":0}\n"
           "{\"type\":1,\"name\":\"a\\u003cb\\u003e\\u0026\\\"\\\\\\n\\u0001\\u2028\u00e9\",\"size\":9,\"payload\":"
           "\"uQlWx3WkEAE=\",\"position\":1}\n"
           "{\"type\":1,\"name\":\"dir/\",\"payload\":null,\"position\":2}\n"
           "{\"type\":1,\"name_raw\":\"/w==\",\"payload\":null,\"position\":3}\n"
           "{\"type\":1,\"payload\":null,\"position\":4}\n"
           "{\"type\":2,\"payload\":\"\",\"position\":5}\n");
  StringSink big;
  tarsplit::Packer pieces(big);
  CHECK_OK(pieces.AddSegment(std::vector<uint8_t>((size_t{1} << 20) + 1)));
  CHECK_EQ(std::count(big.text.begin(), big.text.end(), '\n'), 2);
  // Sequences that are no UTF-8 by Go's rules go into name_raw.
  for (const char* bad : {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "a\x80"}) {
    StringSink line;
    tarsplit::Packer one(line);
    CHECK_OK(one.AddFile(bad, 0, std::nullopt));
    CHECK(line.text.find("name_raw") != std::string::npos);
  }
}

void TestNames() {
  struct Case {
    std::string name;
    const char* path;  // "!": unsafe
    unpack::NameKind kind;
  };
  const Case cases[] = {
      {"a/b", "a/b", unpack::NameKind::kFile},
      {"./a//b/", "a/b", unpack::NameKind::kFile},
      {"/a", "a", unpack::NameKind::kFile},
      {"a/../b", "b", unpack::NameKind::kFile},
      {"/../a", "a", unpack::NameKind::kFile},
      {"../a", "!", unpack::NameKind::kFile},
      {"a/../../b", "!", unpack::NameKind::kFile},
      {"..", "!", unpack::NameKind::kFile},
      {".", "", unpack::NameKind::kRoot},
      {"", "", unpack::NameKind::kRoot},
      {"a/..", "", unpack::NameKind::kRoot},
      {".wh.a", ".wh.a", unpack::NameKind::kWhiteout},
      {"d/.wh.a/", "d/.wh.a", unpack::NameKind::kWhiteout},
      {"d/.wh..wh..opq", "d/.wh..wh..opq", unpack::NameKind::kOpaque},
      {".wh..wh.plnk/1", ".wh..wh.plnk/1", unpack::NameKind::kDropped},
      {"d/.wh..wh.aufs", "d/.wh..wh.aufs", unpack::NameKind::kDropped},
      {".wh.", "!", unpack::NameKind::kFile},
      {"d/.wh..", "!", unpack::NameKind::kFile},
      {".wh...", "!", unpack::NameKind::kFile},
      {"..a", "..a", unpack::NameKind::kFile},
      {std::string("a\0b", 3), "!", unpack::NameKind::kFile},
  };
  for (const Case& one : cases) {
    auto parsed = unpack::ParseEntryName(one.name, {});
    CHECK_EQ(parsed.ok(), std::string_view(one.path) != "!");
    if (!parsed.ok()) {
      CHECK_EQ(parsed.error().fault, Fault::kUnsafePath);
      continue;
    }
    CHECK_EQ(parsed->path, one.path);
    CHECK(parsed->kind == one.kind);
  }
  unpack::UnpackLimits limits;
  limits.max_path_depth = 2;
  limits.max_path_length = 10;
  CHECK_OK(unpack::ParseEntryName("a/b/../c", limits));
  auto deep = unpack::ParseEntryName("a/b/c", limits);
  CHECK(!deep.ok() && deep.error().detail == "maxPathDepth");
  auto length = unpack::ParseEntryName("aaaaaaaaaaa", limits);
  CHECK(!length.ok() && length.error().detail == "maxPathLength");
}

}  // namespace

int main() {
  TestNumeric();
  TestHeader();
  TestPax();
  TestSparse();
  TestReader();
  TestRecordLines();
  TestNames();
  return Finish();
}
