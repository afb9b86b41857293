// See cgroup.hpp.
//
// Formats    /proc/self/cgroup      HIERARCHY:CONTROLLERS:PATH      version 2: 0::PATH
//            /proc/self/mountinfo   ID PARENT DEV ROOT MOUNT OPTIONS [TAGS...] - TYPE SOURCE SUPER    blanks are octal escapes
//            cpu.max                "QUOTA PERIOD", or "max PERIOD", in microseconds
//            cpu.cfs_quota_us, cpu.cfs_period_us                    version 1; a quota of -1: none
#include "arch/cgroup.hpp"

#include <cstdlib>
#include <string_view>

#include "arch/kernel.hpp"

namespace weft::arch {
namespace {

constexpr std::size_t kFileMax = std::size_t{4} << 20;

/// The whole file; empty if it cannot be read.
std::string read_whole(const char* path) {
  std::string text(4096, '\0');
  for (;;) {
    const ssize_t n = kernel.read_file(path, text.data(), text.size());
    if (n < 0) return {};
    if (static_cast<std::size_t>(n) < text.size() || text.size() >= kFileMax) {
      text.resize(static_cast<std::size_t>(n));
      return text;
    }
    text.resize(text.size() * 4);  // there may be more: it is read anew
  }
}

/// The text up to `c`, taken off the front of `rest`.
std::string_view take(std::string_view& rest, char c) {
  const std::size_t at = rest.find(c);
  const std::string_view part = rest.substr(0, at);
  rest = at == std::string_view::npos ? std::string_view() : rest.substr(at + 1);
  return part;
}

bool has_word(std::string_view list, std::string_view word) {
  while (!list.empty())
    if (take(list, ',') == word) return true;
  return false;
}

/// "\040" and the like.
std::string unescape(std::string_view text) {
  std::string out;
  auto digit = [&](std::size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '7'; };
  for (std::size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

/// This process's path in the hierarchy with the cpu controller. False: there is none.
bool own_path(std::string* path, bool* v1) {
  const std::string text = read_whole("/proc/self/cgroup");
  std::string_view rest = text;
  bool found = false;
  while (!rest.empty()) {
    std::string_view line = take(rest, '\n');
    const std::string_view hierarchy = take(line, ':');
    const std::string_view controllers = take(line, ':');
    if (has_word(controllers, "cpu")) {
      *v1 = true;
      *path = line;
      return true;
    }
    if (hierarchy == "0" && controllers.empty()) {
      *v1 = false;
      *path = line;
      found = true;
    }
  }
  return found;
}

/// Where that hierarchy is mounted, and which part of it that is.
bool mount_of(bool v1, std::string* root, std::string* mount) {
  const std::string text = read_whole("/proc/self/mountinfo");
  std::string_view rest = text;
  while (!rest.empty()) {
    std::string_view line = take(rest, '\n');
    for (int i = 0; i < 3; i++) take(line, ' ');
    const std::string_view its_root = take(line, ' ');
    const std::string_view its_mount = take(line, ' ');
    while (!line.empty() && take(line, ' ') != "-") {
    }
    const std::string_view type = take(line, ' ');
    take(line, ' ');
    if (v1 ? type == "cgroup" && has_word(line, "cpu") : type == "cgroup2") {
      *root = unescape(its_root);
      *mount = unescape(its_mount);
      return true;
    }
  }
  return false;
}

/// Its quota as CPUs, rounded up; 0: none.
long long quota_of(const std::string& group, bool v1) {
  long long quota = -1, period = 0;
  if (v1) {
    const std::string q = read_whole((group + "/cpu.cfs_quota_us").c_str());
    if (q.empty()) return 0;
    quota = std::atoll(q.c_str());
    period = std::atoll(read_whole((group + "/cpu.cfs_period_us").c_str()).c_str());
  } else {
    const std::string text = read_whole((group + "/cpu.max").c_str());
    std::string_view rest = text;
    const std::string first(take(rest, ' '));
    if (first.empty() || first == "max") return 0;
    quota = std::atoll(first.c_str());
    period = std::atoll(std::string(rest).c_str());
  }
  return quota > 0 && period > 0 ? (quota + period - 1) / period : 0;
}

}  // namespace

void CpuQuota::find() {
  groups_.clear();
  std::string path, root, group;
  if (!own_path(&path, &v1_) || !mount_of(v1_, &root, &group)) return;
  groups_.push_back(group);
  // A container sees a part of the hierarchy, or a path that leads out of it: then the mount is all there is.
  if (root == "/") root.clear();
  if (path.compare(0, root.size(), root) != 0 || path.rfind("/..", 0) == 0) return;
  std::string_view below = std::string_view(path).substr(root.size());
  if (!below.empty() && below[0] != '/') return;
  while (!below.empty()) {
    const std::string_view part = take(below, '/');
    if (part.empty()) continue;
    group += '/';
    group += part;
    groups_.push_back(group);
  }
}

int CpuQuota::cpus() const {
  long long least = 0;
  for (const std::string& group : groups_) {
    const long long cpus = quota_of(group, v1_);
    if (cpus > 0 && (least == 0 || cpus < least)) least = cpus;
  }
  constexpr long long kMost = 1 << 20;
  return static_cast<int>(least < kMost ? least : kMost);
}

}  // namespace weft::arch
