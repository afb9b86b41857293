// A deadlock that is explained: three philosophers, three forks, and everybody has taken the left
// one.
//
// The runtime ends a deadlocked process, as Go's does, so the philosophers dine in a child process.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>

#include <weft/go.hpp>
#include <weft/mutex.hpp>
#include <weft/runtime.hpp>
#include <weft/wait_group.hpp>

#include "tools/common/repository.hpp"
#include "tools/tour/programs.hpp"

extern char** environ;

namespace tour {

namespace {

constexpr int kLinesShown = 16;

}  // namespace

int philosophers(const Options& options) {
  return weft::run(
      [] {
        weft::Mutex forks[3];
        weft::WaitGroup seated, dinner;
        seated.add(3);
        for (int i = 0; i < 3; i++) {
          dinner.add(1);
          weft::go({.name = "philosopher " + std::to_string(i)}, [&, i] {
            std::lock_guard left(forks[i]);
            seated.done();
            seated.wait();
            std::lock_guard right(forks[(i + 1) % 3]);  // the neighbour has it
            dinner.done();
          });
        }
        dinner.wait();
      },
      {.procs = options.procs});
}

int deadlock(const Options& options) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    std::fprintf(stderr, "weft-tour: pipe: %s\n", std::strerror(errno));
    return 1;
  }
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  std::string program = tools::own_executable();
  std::string procs = "--procs=" + std::to_string(options.procs);
  char name[] = "weft-tour", command[] = "philosophers";
  char* args[] = {name, command, options.procs > 0 ? procs.data() : nullptr, nullptr};
  pid_t child = -1;
  int error = ::posix_spawn(&child, program.c_str(), &actions, nullptr, args, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (error != 0) {
    std::fprintf(stderr, "weft-tour: cannot start %s: %s\n", program.c_str(), std::strerror(error));
    ::close(ends[0]);
    return 1;
  }

  std::string report;
  char buffer[4096];
  for (ssize_t n; (n = ::read(ends[0], buffer, sizeof buffer)) != 0;) {
    if (n > 0) report.append(buffer, static_cast<std::size_t>(n));
    if (n < 0 && errno != EINTR) break;
  }
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }

  int shown = 0, lines = 0;
  for (std::size_t at = 0; at < report.size(); lines++) {
    std::size_t end = std::min(report.find('\n', at), report.size());
    if (lines < kLinesShown) {
      std::printf("  | %.*s\n", static_cast<int>(end - at), report.data() + at);
      shown++;
    }
    at = end + 1;
  }
  if (shown < lines) std::printf("  | ... and %d more lines with the stacks\n", lines - shown);
  bool exited = WIFEXITED(status);
  int code = exited ? WEXITSTATUS(status) : WTERMSIG(status);
  std::printf("the child process ended with %s %d\n", exited ? "exit status" : "signal", code);
  bool explained =
      report.find("fatal error: all goroutines are asleep - deadlock!") != std::string::npos;
  return exited && code == 2 && explained ? 0 : 1;
}

}  // namespace tour
