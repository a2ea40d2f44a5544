// RecordIndex of any bytes, made to look undamaged: what it gives for a name is of that name and within bounds.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "hash/sha256.h"
#include "layer/record_index.h"
#include "sys/files.h"
#include "sys/open.h"

namespace {

using layerstore::Candidate;
using layerstore::RecordIndex;

std::string path;
RecordIndex::Scope scope;
std::string sound;  // an index of two records

void Demand(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

Candidate Record(char digit, bool child) {
  Candidate candidate{};
  candidate.name.fill(digit);
  candidate.diff.fill(digit);
  candidate.parent.fill('0');
  candidate.has_parent = child;
  candidate.lasting = true;
  candidate.cache_id[0] = 'c';
  candidate.cache_id_bytes = 1;
  return candidate;
}

void SetUp() {
  char name[] = "/tmp/layerstore-index-fuzz-XXXXXX";
  const int fd = mkstemp(name);
  Demand(fd >= 0, "no temporary file");
  close(fd);
  path = name;
  auto root = layerstore::OpenPath("/", O_RDONLY | O_DIRECTORY);
  Demand(root.ok(), "no root");
  scope = *RecordIndex::ScopeOf(root->get());
  const Candidate records[] = {Record('a', false), Record('b', true)};
  Demand(RecordIndex::Write(path, scope, records).ok(), "no index");
  sound = *layerstore::ReadWholeFile(path);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (path.empty()) SetUp();
  // The input is laid over the sound one, byte by byte, and goes on behind it; then the digest is made right.
  std::string bytes = sound.substr(0, sound.size() - sizeof(layerstore::Sha256Digest));
  if (size > bytes.size()) bytes.resize(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(bytes[i] ^ data[i]);
  layerstore::Sha256 hash;
  hash.Update({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  const layerstore::Sha256Digest digest = hash.Finish();
  bytes.append(reinterpret_cast<const char*>(digest.data()), digest.size());
  const int fd = open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
  Demand(fd >= 0, "cannot write");
  Demand(layerstore::WriteFully(fd, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}).ok(), "written");
  close(fd);
  const RecordIndex index = RecordIndex::Load(path, scope);
  for (const char digit : {'a', 'b', 'c', '\0'}) {
    Candidate asked{};
    asked.name.fill(digit);
    if (!index.Take(asked)) continue;
    Demand(asked.cache_id_bytes <= Candidate::kMaxCacheId, "a cache id beyond its place");
    Demand(asked.size >= 0 && asked.size < 1e15, "a size that is none");
    Demand(asked.name == Record(digit, false).name, "another name");
  }
  return 0;
}
