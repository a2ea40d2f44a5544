// Changes, tars and commits of real overlay mounts, compared with walks of the mounted trees by brute force.
#include "pack/pack.h"
#include "test/tree_support.h"
#include "tree/verify.h"

using namespace layerstore;
using namespace layerstore::test;

namespace {

const CancelToken kNever;

// Changes between two whole trees, which is what Docker computes from two mounts.
std::string BruteForce(const std::string& now, const std::string& before) {
  tree::DiffRequest request;
  request.upper = {{now}, tree::Whiteouts::kApply};
  request.lower = {{before}, tree::Whiteouts::kApply};
  auto changes = tree::Changes(request, kNever);
  CHECK_OK(changes);
  return changes.ok() ? FormatChanges(*changes) : "";
}

std::string FromLayers(const tree::DiffRequest& request) {
  auto changes = tree::Changes(request, kNever);
  CHECK_OK(changes);
  return changes.ok() ? FormatChanges(*changes) : "";
}

std::string Tar(const tree::DiffRequest& request) {
  StringSink sink;
  auto summary = pack::WriteTreeTar(request, sink, kNever);
  CHECK_OK(summary);
  if (summary.ok()) CHECK_EQ(summary->bytes, sink.text.size());
  return sink.text;
}

void FillLower(const std::string& root) {
  mkdir((root + "/etc").c_str(), 0755);
  Put(root + "/etc/passwd", "root:x:0:0\n");
  Put(root + "/etc/hosts", "localhost\n");
  Put(root + "/etc-x", "sorts between\n");
  mkdir((root + "/var").c_str(), 0755);
  mkdir((root + "/var/log").c_str(), 0755);
  Put(root + "/var/log/a", "aaaa");
  Put(root + "/var/log/b", "bbbb");
  mkdir((root + "/var/log/deep").c_str(), 0700);
  Put(root + "/var/log/deep/c", "cccc");
  mkdir((root + "/opt").c_str(), 0755);
  mkdir((root + "/opt/old").c_str(), 0755);
  Put(root + "/opt/old/one", std::string(100000, '1'));
  Put(root + "/opt/old/two", "2");
  mkdir((root + "/opt/old/sub").c_str(), 0755);
  Put(root + "/opt/old/sub/three", "3");
  mkdir((root + "/gone").c_str(), 0755);
  Put(root + "/gone/x", "x");
  Put(root + "/file-then-dir", "f");
  mkdir((root + "/dir-then-file").c_str(), 0755);
  Put(root + "/dir-then-file/inside", "i");
  Put(root + "/big", std::string(300000, 'b'));
  Put(root + "/same", "same");
  Put(root + "/caf\xe9", "latin");
}

void Change(const std::string& root) {
  Put(root + "/etc/hosts", "localhost changed\n");
  Put(root + "/new", "new");
  CHECK(unlink((root + "/var/log/a").c_str()) == 0);
  CHECK(rename((root + "/opt/old").c_str(), (root + "/opt/fresh").c_str()) == 0);
  Put(root + "/opt/fresh/four", "4");
  CHECK(unlink((root + "/opt/fresh/two").c_str()) == 0);
  CHECK(rename((root + "/opt/fresh/sub").c_str(), (root + "/opt/sub2").c_str()) == 0);
  std::filesystem::remove_all(root + "/gone");
  std::filesystem::remove_all(root + "/var/log/deep");
  CHECK(mkdir((root + "/var/log/deep").c_str(), 0700) == 0);
  Put(root + "/var/log/deep/d", "dddd");
  CHECK(unlink((root + "/file-then-dir").c_str()) == 0);
  CHECK(mkdir((root + "/file-then-dir").c_str(), 0755) == 0);
  Put(root + "/file-then-dir/z", "z");
  std::filesystem::remove_all(root + "/dir-then-file");
  Put(root + "/dir-then-file", "now a file");
  CHECK(chmod((root + "/big").c_str(), 0600) == 0);   // a metacopy
  CHECK(chmod((root + "/same").c_str(), 0644) == 0);  // copied up and equal
  CHECK(link((root + "/new").c_str(), (root + "/new-link").c_str()) == 0);
  CHECK(symlink("target", (root + "/sym").c_str()) == 0);
  CHECK(mknod((root + "/fifo").c_str(), S_IFIFO | 0644, 0) == 0);
  CHECK(mknod((root + "/dev").c_str(), S_IFCHR | 0644, makedev(1, 3)) == 0);
  CHECK(lsetxattr((root + "/new").c_str(), "user.note", "hello", 5, 0) == 0);
  CHECK(mkdir((root + "/" + std::string(120, 'n')).c_str(), 0755) == 0);
  Put(root + "/" + std::string(120, 'n') + "/\xff\xfe", "raw");
  SetTime(root + "/new", -2, 500000000);
  CHECK(chown((root + "/fifo").c_str(), 3000000, 70000) == 0);
}

void OverlayDifference() {
  const Scratch scratch;
  const std::string bottom = scratch.Dir("bottom"), lower = scratch.Dir("lower"), upper = scratch.Dir("upper");
  const std::string work = scratch.Dir("work"), work2 = scratch.Dir("work2"), merged = scratch.Dir("merged"),
                    below = scratch.Dir("below");
  FillLower(bottom);
  {
    const OverlayAt first(bottom, lower, work2, merged);
    Put(merged + "/etc/from-lower", "l");
    CHECK(unlink((merged + "/etc-x").c_str()) == 0);
    Put(merged + "/var/log/b", "changed in lower");
  }
  tree::DiffRequest request;
  request.upper = {{upper}, tree::Whiteouts::kOverlay};
  request.lower = {{lower, bottom}, tree::Whiteouts::kOverlay};
  const OverlayAt rw(lower + ":" + bottom, upper, work, merged);
  Change(merged);
  CHECK(mknod((upper + "/never-there").c_str(), S_IFCHR, 0) == 0);
  CHECK(::mount("overlay", below.c_str(), "overlay", MS_RDONLY,
                ("index=off,redirect_dir=on,metacopy=on,lowerdir=" + lower + ":" + bottom).c_str()) == 0);
  const std::string wanted = BruteForce(merged, below);
  Expect(FromLayers(request), wanted, __LINE__);
  CHECK(wanted.find("D /never-there") == std::string::npos);
  CHECK(wanted.find("C /etc\nC /etc/hosts\n") != std::string::npos);
  CHECK(wanted.find("D /var/log/deep/c\n") != std::string::npos);
  CHECK(wanted.find("/same") == std::string::npos);
  CHECK(wanted.find("C /dir-then-file\nC /etc") != std::string::npos ||
        wanted.find("C /dir-then-file\n") != std::string::npos);

  // The whole tree without a mount is the mounted tree.
  tree::DiffRequest whole;
  whole.upper = {{upper, lower, bottom}, tree::Whiteouts::kOverlay};
  tree::DiffRequest mounted;
  mounted.upper = {{merged}, tree::Whiteouts::kApply};
  CHECK(Tar(whole) == Tar(mounted));
  auto size = tree::DiffSize(whole, kNever);
  auto size2 = tree::DiffSize(mounted, kNever);
  CHECK_OK(size);
  CHECK_OK(size2);
  CHECK_EQ(*size, *size2);

  // Sealed by copy, then by taking over: both are the tar's layer.
  const std::string tar = Tar(request);
  hash::Sha256 sha;
  sha.Update(Bytes(tar));
  const hash::Sha256Digest digest = sha.Finish();
  const auto seal = [&](bool consume, const std::string& directory, tree::DiffRequest diff) {
    pack::CommitTreeRequest sealing;
    sealing.diff = std::move(diff);
    sealing.directory = directory;
    sealing.consume = consume;
    sealing.tar_split_path = directory + ".tar-split.gz";
    Progress progress;
    auto sealed = pack::CommitTree(sealing, progress, kNever);
    CHECK_OK(sealed);
    if (!sealed.ok()) return;
    CHECK(sealed->diff_id == digest);
    CHECK_EQ(sealed->tar_size, tar.size());
    StringSink again;
    CHECK_OK(pack::Assemble({sealing.tar_split_path, directory, digest}, again, kNever));
    CHECK(again.text == tar);
    auto problems = tree::VerifyTree(
        {sealing.tar_split_path, directory, tree::Whiteouts::kOverlay, tree::Privilege::kFull, digest, 0}, kNever);
    CHECK_OK(problems);
    for (const tree::TreeProblem& problem : *problems) {
      std::fprintf(stderr, "%s: %s, expected %s, found %s\n", problem.path.c_str(), problem.what.c_str(),
                   problem.expected.c_str(), problem.found.c_str());
    }
    CHECK(problems->empty());
    // Seen through a mount, the sealed layer is the RW layer.
    const std::string view = scratch.Dir(consume ? "view-consumed" : "view-copied");
    CHECK(::mount(
              "overlay", view.c_str(), "overlay", MS_RDONLY,
              ("index=off,redirect_dir=off,metacopy=off,lowerdir=" + directory + ":" + lower + ":" + bottom).c_str()) ==
          0);
    CHECK(SameTree(ReadTree(view), ReadTree(merged)));
    CHECK(umount2(view.c_str(), MNT_DETACH) == 0);
  };
  seal(false, scratch.Dir("sealed"), request);
  const std::string taken = scratch.Dir("taken");
  CHECK_OK(tree::CopyTree(upper, taken, kNever));
  // CopyTree leaves overlay's own xattrs out; a consumed directory has them.
  std::filesystem::remove_all(taken);
  CHECK(std::system(("cp -a " + upper + " " + taken).c_str()) == 0);
  tree::DiffRequest consumed = request;
  consumed.upper.directories = {taken};
  seal(true, taken, consumed);
  CHECK(SameTree(ReadTree(taken), ReadTree(scratch / "sealed")));
  CHECK(umount2(below.c_str(), MNT_DETACH) == 0);
}

void PlainDifference() {
  const Scratch scratch;
  const std::string before = scratch.Dir("before"), now = scratch.Dir("now");
  FillLower(before);
  CHECK_OK(tree::CopyTree(before, now, kNever));
  CHECK(SameTree(ReadTree(before), ReadTree(now)));
  Expect(BruteForce(now, before), "", __LINE__);
  Put(now + "/etc/hosts", "other");
  CHECK(unlink((now + "/var/log/a").c_str()) == 0);
  std::filesystem::remove_all(now + "/gone");
  SetTime(now + "/same", 1, 0);
  Expect(BruteForce(now, before), "C /etc\nC /etc/hosts\nD /gone\nC /same\nC /var\nC /var/log\nD /var/log/a\n",
         __LINE__);
  tree::DiffRequest request;
  request.upper = {{now}, tree::Whiteouts::kApply};
  request.lower = {{before}, tree::Whiteouts::kApply};
  const std::string tar = Tar(request);
  // The first entry is the directory above the first change, after a PAX header for its nanoseconds.
  CHECK(tar.substr(0, 10) == std::string("PaxHeader\0", 10) && tar.substr(1024, 5) == std::string("etc/\0", 5));
  pack::CommitTreeRequest sealing;
  sealing.diff = request;
  sealing.directory = scratch.Dir("sealed");
  sealing.tar_split_path = scratch / "split.gz";
  Progress progress;
  auto sealed = pack::CommitTree(sealing, progress, kNever);
  CHECK_OK(sealed);
  CHECK_EQ(sealed->tar_size, tar.size());
  StringSink again;
  CHECK_OK(pack::Assemble({sealing.tar_split_path, sealing.directory, sealed->diff_id}, again, kNever));
  CHECK(again.text == tar);
  CHECK(SameTree(ReadTree(sealing.directory), ReadTree(now)));
}

void TimeRule() {
  const Scratch scratch;
  const std::string before = scratch.Dir("before"), now = scratch.Dir("now");
  const auto both = [&](const std::string& name, long nsec_before, long nsec_now) {
    for (const std::string& root : {before, now}) Put(root + "/" + name, "x");
    SetTime(before + "/" + name, 100, nsec_before);
    SetTime(now + "/" + name, 100, nsec_now);
  };
  both("cut-now", 5, 0);
  both("cut-before", 0, 5);
  both("equal", 7, 7);
  both("differs", 6, 7);
  Expect(BruteForce(now, before), "C /differs\n", __LINE__);
}

void RefusesWhiteoutNames() {
  const Scratch scratch;
  const std::string upper = scratch.Dir("upper");
  Put(upper + "/.wh.trap", "x");
  tree::DiffRequest request;
  request.upper = {{upper}, tree::Whiteouts::kOverlay};
  StringSink sink;
  auto summary = pack::WriteTreeTar(request, sink, kNever);
  CHECK(!summary.ok() && summary.error().fault == Fault::kNotSupported);
  CHECK(FromLayers(request) == "A /.wh.trap\n");
}

void EmptyTar() {
  const Scratch scratch;
  tree::DiffRequest request;
  request.upper = {{scratch.Dir("empty")}, tree::Whiteouts::kOverlay};
  StringSink sink;
  auto summary = pack::WriteTreeTar(request, sink, kNever);
  CHECK_OK(summary);
  CHECK(sink.text == std::string(1024, '\0'));
  CHECK_EQ(hash::FormatDigest(summary->diff_id),
           std::string("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"));
}

}  // namespace

int main() {
  EmptyTar();
  TimeRule();
  PlainDifference();
  RefusesWhiteoutNames();
  OverlayDifference();
  return Finish();
}
