// weft-tour: short programs with real output, all of them or the one that is named.
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "tools/common/cli.hpp"
#include "tools/common/human.hpp"
#include "tools/common/repository.hpp"
#include "tools/tour/programs.hpp"

namespace {

struct Program {
  const char* name;
  const char* what;
  int (*run)(const tour::Options&);
};

constexpr Program kPrograms[] = {
    {"digest", "SHA-256 of every file in a tree: a walk, 16 digesters, results over a channel",
     tour::digest},
    {"sieve", "primes from a chain of goroutines, each dropping the multiples of one prime",
     tour::sieve},
    {"skynet", "a tree of goroutines with a million leaves, summed up through channels",
     tour::skynet},
    {"sleepers", "100,000 goroutines that sleep for 1 to 10 ms each", tour::sleepers},
    {"echo", "a TCP echo server and 64 clients over loopback sockets", tour::echo},
    {"deadlock", "three philosophers who wait for each other, and what the runtime says",
     tour::deadlock},
};

/// Announces the program, runs it, says how long it took.
int show(const Program& program, const tour::Options& options) {
  std::printf("== %s: %s\n", program.name, program.what);
  std::fflush(stdout);
  auto begin = std::chrono::steady_clock::now();
  int status = program.run(options);
  std::printf("%s in %s\n\n", status == 0 ? "done" : "FAILED",
              tools::human_duration(std::chrono::steady_clock::now() - begin).c_str());
  std::fflush(stdout);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = "weft-tour";
  tour::Options options;
  CLI::App app{"Short weft programs with real output; all of them, or the one that is named.",
               name};
  app.require_subcommand(0, 1);
  app.fallthrough();
  tools::add_procs(app, options.procs);
  app.add_flag("--small", options.small, "less of everything, for sanitizer builds");
  std::vector<CLI::App*> commands;
  for (const Program& program : kPrograms) {
    commands.push_back(app.add_subcommand(program.name, program.what));
  }
  commands[0]->add_option("DIR", options.directory,
                          "the tree; the one this program was built in, else .");
  CLI::App* hidden =
      app.add_subcommand("philosophers", "the deadlock itself, in this process")->group("");
  if (std::optional<int> status = tools::parse(app, argc, argv)) return *status;

  if (hidden->parsed()) return tour::philosophers(options);
  if (options.directory.empty()) options.directory = tools::repository_or_current_directory();
  struct stat status;
  if (::lstat(options.directory.c_str(), &status) != 0) {
    return tools::usage_error(name,
                              tools::quoted_path(options.directory) + ": " + std::strerror(errno));
  }

  for (std::size_t i = 0; i < commands.size(); i++) {
    if (commands[i]->parsed()) return show(kPrograms[i], options);
  }
  std::string failed;
  for (const Program& program : kPrograms) {
    if (show(program, options) != 0) failed += std::string(" ") + program.name;
  }
  if (!failed.empty()) {
    std::printf("weft-tour: failed:%s\n", failed.c_str());
    return tools::kExitFail;
  }
  std::printf("weft-tour: %zu programs, all as expected\n", std::size(kPrograms));
  return tools::kExitPass;
}
