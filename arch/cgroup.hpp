// The CPU quota of the control groups that this process is in.
//
// A container with 64 CPUs in sight and a quota of 3 is stopped for the rest of each period once it has used that much: more
// threads than quota only make all of them wait. The files are read through the kernel-call table.
// Hierarchy  A quota of any group above holds too, as far as the namespace shows them: the smallest counts. (Go 1.25 does the same
//            by rule; versions 1 and 2 differ in files and spelling only.)
// Found      once: a process that is moved to another group later keeps looking at its old one, as in Go.
#pragma once

#include <string>
#include <vector>

namespace weft::arch {

class CpuQuota {
 public:
  /// Finds the groups. Reads /proc/self/cgroup and /proc/self/mountinfo.
  void find();
  /// How many CPUs' worth of time the smallest quota gives, rounded up; 0: no limit. One or two small files per group.
  int cpus() const;

 private:
  bool v1_ = false;
  std::vector<std::string> groups_;  // folders, the process's own last
};

}  // namespace weft::arch
