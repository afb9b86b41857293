// weft-digest as a function: the program, the tour and whoever wants checksums of a tree call it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace digest {

struct Options {
  std::string root = ".";
  std::string algorithm = "sha256";  // or "md5"
  int jobs = 16;                     // digester goroutines
  bool fail_fast = false;            // the first error cancels everything
};

struct Totals {
  std::uint64_t files = 0;  // digested
  std::uint64_t bytes = 0;
  std::uint64_t errors = 0;
};

/// Where the lines go, in the order of the paths; both are called by the calling goroutine.
struct Sink {
  std::function<void(std::string_view line)> out = {};    // "HEX  PATH\n"
  std::function<void(std::string_view line)> error = {};  // "PATH: reason"
};

/// Digests every regular file under `options.root`. Called by a goroutine, which parks meanwhile.
Totals run(const Options& options, const Sink& sink);

}  // namespace digest
