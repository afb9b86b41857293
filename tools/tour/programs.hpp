// The programs of the tour. Each is a whole weft program in a file of its own, started from a plain
// main.
#pragma once

#include <string>

namespace tour {

/// What a program is run with. A small run is for builds that are slow by design (TSan).
struct Options {
  int procs = 0;
  bool small = false;
  std::string directory;  // of digest
};

/// Each prints its result on stdout and returns an exit status.
int digest(const Options& options);
int sieve(const Options& options);
int skynet(const Options& options);
int sleepers(const Options& options);
int echo(const Options& options);
int deadlock(const Options& options);

/// What `deadlock` shows: three goroutines that wait for each other, in this process.
int philosophers(const Options& options);

}  // namespace tour
