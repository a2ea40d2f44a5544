#include "mount/mount_table.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <string_view>

#include "sys/fd_io.h"
#include "sys/open.h"

namespace layerstore::mount {
namespace {

// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
std::string Unescape(std::string_view text) {
  std::string plain;
  plain.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto octal = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::string_view NextField(std::string_view& line) {
  const size_t space = line.find(' ');
  const std::string_view field = line.substr(0, space);
  line.remove_prefix(space == std::string_view::npos ? line.size() : space + 1);
  return field;
}

uint64_t ParseNumber(std::string_view text) {
  uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

// proc(5): id parent major:minor root target options optional… - type source super-options
bool ParseLine(std::string_view line, MountInfo& entry) {
  entry.id = ParseNumber(NextField(line));
  entry.parent = ParseNumber(NextField(line));
  NextField(line);
  entry.root = Unescape(NextField(line));
  entry.target = Unescape(NextField(line));
  NextField(line);
  while (!line.empty() && NextField(line) != "-") continue;
  if (line.empty()) return false;
  entry.fs_type = Unescape(NextField(line));
  entry.source = Unescape(NextField(line));
  entry.options = Unescape(line);
  return true;
}

// The path as the mount table shows it: links resolved. The given one where it cannot be told (longer than PATH_MAX).
Result<std::string> Canonical(const std::string& directory) {
  LS_ASSIGN(const UniqueFd fd, sys::OpenPath(directory, O_PATH | O_DIRECTORY));
  std::array<char, 4096> buffer;
  const ssize_t length = readlink(sys::ProcFdPath(fd.get()).c_str(), buffer.data(), buffer.size());
  if (length <= 0 || static_cast<size_t>(length) == buffer.size()) return directory;
  return std::string(buffer.data(), static_cast<size_t>(length));
}

}  // namespace

Result<std::vector<MountInfo>> ReadMounts(const std::string& directory) {
  std::vector<MountInfo> found;
  const Result<std::string> canonical = Canonical(directory);
  if (!canonical) {
    if (canonical.error().err == ENOENT || canonical.error().err == ENOTDIR) return found;
    return canonical.error();
  }
  LS_ASSIGN(const std::string table, sys::ReadWholeFile("/proc/thread-self/mountinfo"));
  const std::string below = *canonical == "/" ? "/" : *canonical + "/";
  // Links in `directory` resolve for the kernel; the caller gets the names it knows.
  std::string given = directory;
  while (given.size() > 1 && given.back() == '/') given.pop_back();
  std::string_view rest = table;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    MountInfo entry;
    const bool parsed = ParseLine(rest.substr(0, end), entry);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (!parsed || (entry.target != *canonical && !entry.target.starts_with(below))) continue;
    if (given != *canonical) entry.target = given + entry.target.substr(canonical->size());
    found.push_back(std::move(entry));
  }
  return found;
}

}  // namespace layerstore::mount
