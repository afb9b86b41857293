// weft-stress: runs random workloads on the runtime and checks what must hold.
//
// The workload runs in a child process, this same executable started again, because a fatal of the
// runtime ends its process with status 2, which for a tool means bad usage. The parent draws the
// progress, passes the child's stderr on, and watches the heartbeat: 30 s without one is a hang,
// for which it asks the child for a dump and ends it.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "tools/common/cli.hpp"
#include "tools/common/human.hpp"
#include "tools/common/progress.hpp"
#include "tools/common/repository.hpp"
#include "tools/stress/status.hpp"

extern char** environ;

namespace {

using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

constexpr const char* kName = "weft-stress";
constexpr const char* kStatusVariable = "STRESS_STATUS_FD";  // in the environment of the child
constexpr auto kDumpLimit = 10s;                             // for the dump of a child that hangs

#if defined(__SANITIZE_THREAD__)
constexpr bool kSlowBuild = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool kSlowBuild = true;
#else
constexpr bool kSlowBuild = false;
#endif
#else
constexpr bool kSlowBuild = false;
#endif

struct Workload {
  const char* name;
  const char* what;
};
constexpr Workload kWorkloads[] = {
    {"spawn", "starting and ending goroutines, exceptions, goexit, blocking calls"},
    {"chan", "channels, mutexes, wait groups, plain threads beside goroutines"},
    {"select", "select over crossed channels, timeouts against sends, closing"},
    {"timer", "sleeps, timers stopped and reset as they fire, tickers"},
    {"fd", "descriptors, peers that close, callbacks from other threads"},
    {"mix", "all of them at once"},
};

struct Options {
  stress::Run run;
  std::string workload;
  std::chrono::nanoseconds duration = 10s;
  std::chrono::nanoseconds stall = 30s;
  bool json = false;
  std::string plant;
};

struct Outcome {
  std::string finding;  // empty: pass
  std::uint64_t rounds = 0;
  std::uint64_t operations = 0;
  std::chrono::nanoseconds elapsed{0};
};

std::string command_line(const Options& o) {
  std::string text = o.workload + " --seed " + std::to_string(o.run.seed) + " --procs " +
                     std::to_string(o.run.procs) + " --duration " +
                     tools::duration_option(o.duration);
  if (o.run.first_round != 0) text += " --round " + std::to_string(o.run.first_round);
  if (o.run.small) text += " --small";
  return text;
}

// ---- the child process, seen from outside

class Child {
 public:
  /// Starts this executable again with the same arguments. Throws std::system_error.
  Child(char** argv, int status_fd) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw error(errno, "pipe");
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    std::string variable = std::string(kStatusVariable) + "=" + std::to_string(status_fd);
    std::vector<char*> environment;
    for (char** at = environ; *at != nullptr; at++) environment.push_back(*at);
    environment.push_back(variable.data());
    environment.push_back(nullptr);
    int failed = ::posix_spawn(&pid_, tools::own_executable().c_str(), &actions, nullptr, argv,
                               environment.data());
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    stderr_ = ends[0];
    if (failed != 0) throw error(failed, "cannot start the child process");
  }
  ~Child() { ::close(stderr_); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// Passes on what it writes to stderr for up to 100 ms. True once it has ended.
  bool attend(bool clear_line) {
    pollfd waiting{stderr_, POLLIN, 0};
    if (open_ && ::poll(&waiting, 1, 100) > 0) {
      char text[4096];
      ssize_t n = ::read(stderr_, text, sizeof text);
      if (n == 0 || (n < 0 && errno != EINTR)) open_ = false;
      if (n > 0) {
        if (clear_line) tools::draw_line("");
        std::fwrite(text, 1, static_cast<std::size_t>(n), stderr);
        return false;  // there may be more
      }
    } else if (!open_) {
      std::this_thread::sleep_for(10ms);
    }
    if (!ended_) ended_ = ::waitpid(pid_, &wait_status_, WNOHANG) == pid_;
    return ended_ && !open_;
  }

  void signal(int number) { ::kill(pid_, number); }

  void kill_and_reap() {
    signal(SIGKILL);
    while (!attend(false)) {
    }
  }

  /// "" for exit status 0.
  std::string how_it_ended() const {
    if (WIFSIGNALED(wait_status_)) {
      int number = WTERMSIG(wait_status_);
      return "the child process was killed by signal " + std::to_string(number) + " (" +
             ::strsignal(number) + ")";
    }
    int code = WEXITSTATUS(wait_status_);
    if (code == 0) return "";
    if (code == 2) return "the runtime ended the child process with exit status 2 (report above)";
    return "the child process ended with exit status " + std::to_string(code);
  }

 private:
  static std::system_error error(int number, const char* what) {
    return std::system_error(number, std::generic_category(), what);
  }

  pid_t pid_ = -1;
  int stderr_ = -1;
  int wait_status_ = 0;
  bool open_ = true;
  bool ended_ = false;
};

/// Watches the child until it ends or hangs.
Outcome watch(Child& child, const Options& options, const stress::Status& status) {
  const bool terminal = tools::stderr_is_terminal();
  const auto begin = Steady::now();
  auto last_beat = begin, drawn = begin;
  std::uint64_t beats = 0;
  bool hung = false;
  while (!child.attend(terminal)) {
    auto now = Steady::now();
    if (std::uint64_t seen = status.operations() + status.rounds_done.load(); seen != beats) {
      beats = seen;
      last_beat = now;
    }
    if (now - last_beat > options.stall) {
      hung = true;
      break;
    }
    if (terminal && now - begin > 1s && now - drawn > 100ms) {
      drawn = now;
      auto ms = [](auto d) { return static_cast<std::uint64_t>(d / 1ms); };
      tools::draw_line(options.workload + " " +
                       tools::progress_text(ms(now - begin), ms(options.duration)) + "  round " +
                       tools::with_commas(status.round.load()) + "  " +
                       tools::with_commas(status.operations()) + " operations");
    }
  }
  if (terminal) tools::draw_line("");

  Outcome outcome;
  outcome.elapsed = Steady::now() - begin;
  outcome.rounds = status.rounds_done.load();
  outcome.operations = status.operations();
  if (hung) {
    outcome.finding = "no progress for " + tools::human_duration(options.stall);
    child.signal(SIGQUIT);
    for (auto asked = Steady::now(); Steady::now() - asked < kDumpLimit;) {
      if (child.attend(false)) break;
    }
    child.kill_and_reap();
  } else if (status.finding_ready.load() != 0) {
    outcome.finding = status.finding;
  } else {
    outcome.finding = child.how_it_ended();
    if (outcome.finding.empty() && status.finished.load() == 0) {
      outcome.finding = "the child process left with exit status 0 before its time";
    }
  }
  if (!outcome.finding.empty()) {
    outcome.finding += " in round " + std::to_string(status.round.load()) + " (" +
                       std::string(status.scenarios) + ")";
  }
  return outcome;
}

// ---- the verdict

int verdict(const Options& options, const Outcome& outcome, const char* program) {
  const bool pass = outcome.finding.empty();
  const std::string reproduce = std::string(program) + " " + command_line(options);
  if (options.json) {
    std::printf(
        "{\"program\": \"%s\", \"workload\": %s, \"seed\": %llu, \"procs\": %d, "
        "\"duration_s\": %.3f, \"small\": %s, \"rounds\": %llu, \"operations\": %llu, "
        "\"elapsed_s\": %.3f, \"verdict\": \"%s\", \"finding\": %s, \"reproduce\": %s}\n",
        kName, tools::json_string(options.workload).c_str(),
        static_cast<unsigned long long>(options.run.seed), options.run.procs,
        static_cast<double>(options.duration.count()) / 1e9, options.run.small ? "true" : "false",
        static_cast<unsigned long long>(outcome.rounds),
        static_cast<unsigned long long>(outcome.operations),
        static_cast<double>(outcome.elapsed.count()) / 1e9, pass ? "pass" : "fail",
        pass ? "null" : tools::json_string(outcome.finding).c_str(),
        tools::json_string(reproduce).c_str());
  } else if (pass) {
    std::printf("%s: PASS %s: %s rounds, %s operations in %s\n", kName,
                command_line(options).c_str(), tools::with_commas(outcome.rounds).c_str(),
                tools::with_commas(outcome.operations).c_str(),
                tools::human_duration(outcome.elapsed).c_str());
  } else {
    std::printf("%s: FAIL: %s; reproduce: %s\n", kName, outcome.finding.c_str(), reproduce.c_str());
  }
  return pass ? tools::kExitPass : tools::kExitFail;
}

stress::Status* map_status(int fd) {
  void* page = ::mmap(nullptr, sizeof(stress::Status), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return page == MAP_FAILED ? nullptr : static_cast<stress::Status*>(page);
}

int run_parent(const Options& options, char** argv) {
  int fd = ::memfd_create("weft-stress", 0);  // inherited by the child
  if (fd < 0 || ::ftruncate(fd, sizeof(stress::Status)) != 0) {
    std::fprintf(stderr, "%s: memfd_create: %s\n", kName, std::strerror(errno));
    return tools::kExitFail;
  }
  stress::Status* status = map_status(fd);
  if (status == nullptr) {
    std::fprintf(stderr, "%s: mmap: %s\n", kName, std::strerror(errno));
    return tools::kExitFail;
  }
  // The child gets every value spelled out, the seed above all.
  std::vector<std::string> words = {argv[0], options.workload};
  auto add = [&](const std::string& flag, const std::string& value) {
    words.push_back(flag);
    words.push_back(value);
  };
  add("--seed", std::to_string(options.run.seed));
  add("--procs", std::to_string(options.run.procs));
  add("--duration", std::to_string(options.duration.count()) + "ns");
  add("--round", std::to_string(options.run.first_round));
  if (options.run.small) words.push_back("--small");
  if (!options.plant.empty()) add("--plant", options.plant);
  std::vector<char*> args;
  for (std::string& word : words) args.push_back(word.data());
  args.push_back(nullptr);
  try {
    Child child(args.data(), fd);
    return verdict(options, watch(child, options, *status), argv[0]);
  } catch (const std::system_error& error) {
    std::fprintf(stderr, "%s: %s\n", kName, error.what());
    return tools::kExitFail;
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  std::optional<std::uint64_t> seed;
  CLI::App app{
      "Runs random workloads on the runtime until the time is over, and checks what must hold.\n"
      "Exit status: 0 pass, 1 a finding, 2 bad usage.",
      kName};
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--seed", seed, "of everything the workload does; a fresh one without it")
      ->type_name("N");
  tools::add_procs(app, options.run.procs);
  tools::add_duration(app, "--duration", options.duration,
                      "how long, such as 10m or 30s; default 10s");
  tools::add_duration(app, "--stall", options.stall,
                      "time without progress that is a hang; default 30s");
  app.add_option("--round", options.run.first_round, "the round to begin with")->type_name("N");
  app.add_flag("--small", options.run.small, "fewer goroutines and operations; on under TSan");
  app.add_flag("--json", options.json, "the verdict as one line of JSON");
  app.add_option("--plant", options.plant)
      ->check(CLI::IsMember({"finding", "fatal", "panic", "crash", "leak", "hang", "spin"}))
      ->group("");
  for (const Workload& workload : kWorkloads) app.add_subcommand(workload.name, workload.what);
  if (std::optional<int> status = tools::parse(app, argc, argv)) return *status;

  options.workload = app.get_subcommands().front()->get_name();
  options.run.workload = options.workload.c_str();
  options.run.plant = options.plant.c_str();
  options.run.seed = seed ? *seed : std::random_device{}() % 1'000'000'000u;
  if (options.run.procs == 0) {
    options.run.procs = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  options.run.duration_ns = options.duration.count();
  if (kSlowBuild) options.run.small = true;

  if (const char* inherited = std::getenv(kStatusVariable)) {
    int fd = std::atoi(inherited);
    stress::Status* status = map_status(fd);
    if (status == nullptr)
      return tools::usage_error(kName, std::string(kStatusVariable) + " is no status page");
    ::close(fd);
    ::unsetenv(kStatusVariable);
    return stress::run_child(options.run, status);
  }
  return run_parent(options, argv);
}
