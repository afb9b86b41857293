// weft-digest on a directory tree, and the pipeline that it replaces beside it.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include <weft/runtime.hpp>

#include "tools/common/human.hpp"
#include "tools/digest/digest.hpp"
#include "tools/tour/programs.hpp"

namespace tour {

namespace {

/// What the shell's pipeline prints, nullopt where its commands are missing.
std::optional<std::string> shell_pipeline(const std::string& directory) {
  ::setenv("TOUR_DIRECTORY", directory.c_str(), 1);  // spares us the quoting
  FILE* pipeline = ::popen(
      "find \"$TOUR_DIRECTORY\" -type f -print0 2>/dev/null | LC_ALL=C sort -z |"
      " xargs -0 sha256sum 2>/dev/null",
      "re");
  if (pipeline == nullptr) return std::nullopt;
  std::string text;
  char buffer[4096];
  while (std::size_t n = std::fread(buffer, 1, sizeof buffer, pipeline)) text.append(buffer, n);
  ::pclose(pipeline);
  if (text.empty()) return std::nullopt;
  return text;
}

}  // namespace

int digest(const Options& options) {
  std::string lines;
  ::digest::Totals totals;
  int status = weft::run(
      [&] {
        ::digest::Sink sink;
        sink.out = [&](std::string_view line) { lines += line; };
        sink.error = [](std::string_view text) {
          std::fprintf(stderr, "weft-tour: %.*s\n", static_cast<int>(text.size()), text.data());
        };
        totals = ::digest::run({.root = options.directory}, sink);
        return 0;
      },
      {.procs = options.procs});

  std::size_t end = 0;
  for (int shown = 0; shown < 3 && end < lines.size(); shown++) end = lines.find('\n', end) + 1;
  std::printf("%.*s", static_cast<int>(end), lines.c_str());
  if (end < lines.size()) std::printf("...\n");
  std::printf("%s files, %s digested\n", tools::with_commas(totals.files).c_str(),
              tools::human_bytes(totals.bytes).c_str());

  auto begin = std::chrono::steady_clock::now();
  std::optional<std::string> expected = shell_pipeline(options.directory);
  if (!expected) {
    std::printf("find, sort, xargs or sha256sum is missing here: nothing to compare with\n");
    return status;
  }
  bool same = lines == *expected;
  std::printf("find | sort | xargs sha256sum prints %s in %s\n",
              same ? "the same bytes" : "something else (did the tree change?)",
              tools::human_duration(std::chrono::steady_clock::now() - begin).c_str());
  return same ? status : 1;
}

}  // namespace tour
