// weft-digest: checksums of a directory tree, line for line what find, sort and sha256sum print.
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include <weft/blocking.hpp>
#include <weft/runtime.hpp>

#include "tools/common/cli.hpp"
#include "tools/common/human.hpp"
#include "tools/common/repository.hpp"
#include "tools/digest/digest.hpp"

int main(int argc, char** argv) {
  const std::string program = "weft-digest";
  digest::Options options;
  weft::Config config;
  options.root.clear();

  CLI::App app{
      "Prints the checksum of every regular file under DIR, byte for byte as\n"
      "  find DIR -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum\n"
      "does. What cannot be read is reported on stderr, the rest goes on, and the exit status is "
      "1.",
      program};
  app.add_option("DIR", options.root, "the tree; the one this program was built in, else .");
  app.add_option("--algo", options.algorithm, "sha256 or md5")
      ->check(CLI::IsMember({"sha256", "md5"}))
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--jobs", options.jobs, "digester goroutines")
      ->check(CLI::Range(1, 10'000))
      ->type_name("N")
      ->capture_default_str();
  tools::add_procs(app, config.procs);
  app.add_flag("--fail-fast", options.fail_fast, "cancel everything on the first error");
  if (std::optional<int> status = tools::parse(app, argc, argv)) return *status;

  if (app.count("DIR") == 0) options.root = tools::repository_or_current_directory();
  struct stat status;
  if (::lstat(options.root.c_str(), &status) != 0) {
    return tools::usage_error(program,
                              tools::quoted_path(options.root) + ": " + std::strerror(errno));
  }

  int write_error = 0;
  auto write_out = [&](std::string_view line) {
    weft::SyscallRegion region;  // stdout may be a pipe that nobody empties
    if (std::fwrite(line.data(), 1, line.size(), stdout) != line.size()) write_error = errno;
  };
  auto write_err = [&](std::string_view text) {
    weft::SyscallRegion region;
    std::fprintf(stderr, "%s: %.*s\n", program.c_str(), static_cast<int>(text.size()), text.data());
  };
  auto digest_tree = [&] {
    try {
      digest::Totals totals = digest::run(options, {.out = write_out, .error = write_err});
      return totals.errors == 0 ? tools::kExitPass : tools::kExitFail;
    } catch (const std::exception& error) {
      return tools::usage_error(program, error.what());
    }
  };
  int result = weft::run(digest_tree, config);
  if (write_error == 0 && std::fflush(stdout) != 0) write_error = errno;
  if (write_error != 0) {
    std::fprintf(stderr, "%s: write error: %s\n", program.c_str(), std::strerror(write_error));
    return tools::kExitFail;
  }
  return result;
}
