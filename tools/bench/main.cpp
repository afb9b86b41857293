// weft-bench: how long the operations of weft take, in the text format that benchstat reads.
//
// Each measurement runs in a process of its own: it starts cold, and one that crashes or hangs
// costs one row. The parent does not start a runtime. go/ holds the same program in Go; compare.sh
// sets the two side by side.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <regex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <weft/runtime.hpp>

#include "tools/bench/bench.hpp"
#include "tools/bench/workloads.hpp"
#include "tools/common/cli.hpp"
#include "tools/common/human.hpp"
#include "tools/common/progress.hpp"

extern char** environ;

namespace bench {

const std::vector<Workload> kWorkloads = {
    {"Yield", 0, yield},
    {"Spawn", 2'000'000, spawn},
    {"SpawnJoin", 0, spawn_join},
    {"PingPong", 0, ping_pong},
    {"PingPongTimer", 0, ping_pong_timer},
    {"ScopePingPong", 0, scope_ping_pong},
    {"Stream0", 0, stream0},
    {"Stream128", 0, stream128},
    {"MPMC", 0, mpmc},
    {"Select4", 0, select4},
    {"SelectTimeout", 0, select_timeout},
    {"Skynet", 1'000'000, skynet},
    {"Ring", 0, ring},
    {"Sieve", 0, sieve},
    {"Mutex1", 0, mutex1},
    {"Mutex8", 0, mutex8},
    {"RwRead", 0, rw_read},
    {"CondPingPong", 0, cond_ping_pong},
    {"ForkJoin", 0, fork_join},
    {"OnceFast", 0, once_fast},
    {"ContextCancel", 200'000, context_cancel},
    {"ErrGroup", 100'000, err_group},
    {"Semaphore8", 0, semaphore8},
    {"Sleepers", 100'000, sleepers},
    {"StartPark", 100'000, start_park},
    {"TimerStop", 0, timer_stop},
    {"Syscall", 0, syscall_region},
    {"Block50us", 0, block_50us},
    {"Block200us", 0, block_200us},
    {"Block900us", 0, block_900us},
    {"BlockBeside", 1, block_beside},
    {"HogsLoop1", 300, hogs_loop_1},
    {"HogsLoop8", 300, hogs_loop_8},
    {"HogsStrlen1", 300, hogs_strlen_1},
    {"HogsStrlen8", 300, hogs_strlen_8},
    {"HogsMalloc1", 300, hogs_malloc_1},
    {"HogsMalloc8", 300, hogs_malloc_8},
    {"HogsRegex1", 300, hogs_regex_1},
    {"HogsRegex8", 300, hogs_regex_8},
    {"StopWorld", 500, stop_world},
    {"FreezeWorld", 500, freeze_world},
    {"Fib", 2 * 317'811 - 1, fib27},  // calls of fib(27): 2 F(28) - 1
    {"RandomWake", 1'000'000, random_wake},
    {"RandomWakeCopyable", 1'000'000, random_wake_copyable},
    {"RandomRing", 1'000'000, random_ring},
    {"RandomRingCopyable", 1'000'000, random_ring_copyable},
    {"Parked", 1'000'000, parked},
    {"ParkedCopyable", 1'000'000, parked_copyable},
    {"ParkedHibernated", 1'000'000, parked_hibernated},
    {"SleepersPeakCopyable", 1'000'000, sleepers_peak_copyable},
    {"SleepersPeakHibernated", 1'000'000, sleepers_peak_hibernated, 800'000'000},
};

namespace {

using std::chrono::nanoseconds;
using namespace std::chrono_literals;

constexpr const char* kProgram = "weft-bench";
constexpr nanoseconds kChildTimeout = 120s;
constexpr nanoseconds kQuitDelay = 5s;

struct Options {
  std::vector<int> procs;
  std::regex run{""};  // matches everything
  int count = 1;
  nanoseconds benchtime = 500ms;
  std::uint64_t seed = 1;
  std::string json_path;
  bool calibrate = false;
  bool list = false;
  bool in_process = false;
  bool child = false;
};

struct Row {
  std::string name;
  int procs;
  std::string n;
  std::vector<std::pair<std::string, std::string>> metrics;  // unit, value
};

void complain(const std::string& text) { std::fprintf(stderr, "%s: %s\n", kProgram, text.c_str()); }

std::vector<int> parse_procs(const std::string& list) {
  std::vector<int> procs;
  std::istringstream fields(list + ",");
  for (std::string field; std::getline(fields, field, ',');) {
    int p = 0;
    auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), p);
    if (error != std::errc() || end != field.data() + field.size() || p < 1 ||
        p > tools::kProcsMax) {
      throw CLI::ValidationError("--procs", "'" + field + "' is not a number from 1 to " +
                                                std::to_string(tools::kProcsMax));
    }
    procs.push_back(p);
  }
  return procs;
}

std::string cpu_name() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    std::size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos)
      return line.substr(colon + 2);
  }
  return "unknown";
}

std::string go_arch() {  // as the Go program names it, so that benchstat sees one machine
  utsname u{};
  ::uname(&u);
  std::string machine = u.machine;
  return machine == "x86_64" ? "amd64" : machine == "aarch64" ? "arm64" : machine;
}

// The result line, or nothing: the reason has been printed.
std::optional<std::string> measure_here(const Workload& w, int procs, const Options& opt) {
  std::optional<Bench> b;
  if (opt.calibrate) {
    b.emplace(measure(w, opt.benchtime, opt.seed));
  } else {
    ::unsetenv("WEFT_PROCS");  // it would override what the row says
    weft::Config config;
    config.procs = procs;
    config.seed = opt.seed;
    config.hibernate_target = w.hibernate_target;
    int status = weft::run([&] { b.emplace(measure(w, opt.benchtime, opt.seed)); }, config);
    if (!b) {
      complain("Benchmark" + label(w.name, procs) + ": the runtime ended with status " +
               std::to_string(status));
      return std::nullopt;
    }
  }
  if (!b->failure().empty()) {
    complain("Benchmark" + label(w.name, procs) + ": wrong result: " + b->failure());
    return std::nullopt;
  }
  return result_line(label(w.name, procs), *b);
}

// Runs this program again for one measurement, whose standard output it returns.
std::optional<std::string> measure_in_child(const Workload& w, int procs, const Options& opt) {
  const std::string title = "Benchmark" + label(w.name, procs);
  int out[2];
  if (::pipe2(out, O_CLOEXEC) != 0) {
    complain(title + ": pipe: " + std::strerror(errno));
    return std::nullopt;
  }
  std::vector<std::string> args = {kProgram,      "--child",
                                   "--run",       "^" + std::string(w.name) + "$",
                                   "--procs",     std::to_string(procs),
                                   "--benchtime", std::to_string(opt.benchtime.count()) + "ns",
                                   "--seed",      std::to_string(opt.seed)};
  if (opt.calibrate) args.push_back("--calibrate");
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  pid_t pid = 0;
  int error = ::posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(out[1]);
  if (error != 0) {
    ::close(out[0]);
    complain(title + ": /proc/self/exe: " + std::strerror(error));
    return std::nullopt;
  }

  // Until the child closes its end, which is when it ends.
  std::string text;
  auto deadline = std::chrono::steady_clock::now() + kChildTimeout + 10 * opt.benchtime;
  bool late = false;
  for (;;) {
    auto left = deadline - std::chrono::steady_clock::now();
    pollfd p{out[0], POLLIN, 0};
    int ready =
        left <= 0s ? 0 : ::poll(&p, 1, static_cast<int>(std::min<Int>(left / 1ms + 1, 1'000'000)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0 && left > 1s) continue;
    if (ready == 0) {
      ::kill(pid, late ? SIGKILL : SIGQUIT);  // SIGQUIT: a runtime prints its goroutines and ends
      deadline = std::chrono::steady_clock::now() + kQuitDelay;
      late = true;
      continue;
    }
    std::array<char, 4096> buffer;
    ssize_t n = ::read(out[0], buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  ::close(out[0]);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (late) {
    complain(title + ": not finished after " +
             tools::human_duration(kChildTimeout + 10 * opt.benchtime));
    return std::nullopt;
  }
  if (WIFSIGNALED(status)) {
    complain(title + ": killed by signal " + std::to_string(WTERMSIG(status)));
    return std::nullopt;
  }
  if (WEXITSTATUS(status) != 0) {
    complain(title + ": exit status " + std::to_string(WEXITSTATUS(status)));
    return std::nullopt;
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

Row parse_line(const std::string& line) {
  std::istringstream in(line);
  Row row{.name = "", .procs = 1, .n = "", .metrics = {}};
  in >> row.name >> row.n;
  if (std::size_t dash = row.name.find('-'); dash != std::string::npos) {
    row.procs = std::atoi(row.name.c_str() + dash + 1);
    row.name.resize(dash);
  }
  for (std::string value, unit; in >> value >> unit;) row.metrics.emplace_back(unit, value);
  return row;
}

void write_json(std::ostream& out, const std::vector<Row>& rows, const Options& opt) {
  out << "{\n  \"program\": \"weft\",\n  \"goos\": \"linux\",\n  \"goarch\": "
      << tools::json_string(go_arch()) << ",\n  \"cpu\": " << tools::json_string(cpu_name())
      << ",\n  \"seed\": " << opt.seed << ",\n  \"benchmarks\": [";
  const char* comma = "";
  for (const Row& row : rows) {
    out << comma << "\n    {\"name\": " << tools::json_string(row.name)
        << ", \"procs\": " << row.procs << ", \"n\": " << row.n << ", \"metrics\": {";
    const char* inner = "";
    for (const auto& [unit, value] : row.metrics) {
      out << inner << tools::json_string(unit) << ": " << value;
      inner = ", ";
    }
    out << "}}";
    comma = ",";
  }
  out << "\n  ]\n}\n";
}

int benchmark(const Options& opt) {
  std::vector<const Workload*> chosen;
  for (const Workload& w : opt.calibrate ? kCalibrations : kWorkloads) {
    if (std::regex_search(w.name, opt.run)) chosen.push_back(&w);
  }
  if (chosen.empty()) return tools::usage_error(kProgram, "--run: no workload matches");
  if (opt.list) {
    for (const Workload* w : chosen) std::puts(w->name);
    return tools::kExitPass;
  }
  std::ofstream json;
  if (!opt.json_path.empty()) {
    json.open(opt.json_path);
    if (!json)
      return tools::usage_error(kProgram, "--json: " + opt.json_path + ": " + std::strerror(errno));
  }
  if (!opt.child) {
    std::printf("goos: linux\ngoarch: %s\npkg: weft/bench\ncpu: %s\n", go_arch().c_str(),
                cpu_name().c_str());
    std::fflush(stdout);
  }
  const bool show = !opt.child && tools::stderr_is_terminal();
  const std::size_t total = chosen.size() * opt.procs.size() * static_cast<std::size_t>(opt.count);
  std::size_t at = 0;
  int status = tools::kExitPass;
  std::vector<Row> rows;
  for (const Workload* w : chosen) {
    for (int procs : opt.procs) {
      for (int i = 0; i < opt.count; i++) {
        at++;
        if (show) {
          tools::draw_line("[" + std::to_string(at) + "/" + std::to_string(total) + "] " +
                           label(w->name, procs));
        }
        bool here = opt.child || opt.in_process;
        std::optional<std::string> line =
            here ? measure_here(*w, procs, opt) : measure_in_child(*w, procs, opt);
        if (show) tools::draw_line("");
        if (!line) {
          status = tools::kExitFail;
          continue;
        }
        std::printf("%s\n", line->c_str());
        std::fflush(stdout);
        rows.push_back(parse_line(*line));
      }
    }
  }
  if (json.is_open()) {
    write_json(json, rows, opt);
    if (!json.flush()) {
      complain("--json: " + opt.json_path + ": " + std::strerror(errno));
      return tools::kExitFail;
    }
  }
  return status;
}

}  // namespace

}  // namespace bench

int main(int argc, char** argv) {
  bench::Options opt;
  opt.procs = {static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};
  CLI::App app{"Measures the operations of weft; the output is what benchstat reads.",
               bench::kProgram};
  app.add_option_function<std::string>(
         "--procs", [&](const std::string& list) { opt.procs = bench::parse_procs(list); },
         "Ps to run on, one number or several with commas; all CPUs without it")
      ->type_name("LIST");
  app.add_option_function<std::string>(
         "--run",
         [&](const std::string& regex) {
           try {
             opt.run = std::regex(regex);
           } catch (const std::regex_error& error) {
             throw CLI::ValidationError("--run", "'" + regex + "' is no regular expression");
           }
         },
         "Measure the workloads that match this regular expression")
      ->type_name("REGEX");
  app.add_option("--count", opt.count, "Measurements of each workload")
      ->check(CLI::Range(1, 1'000'000))
      ->type_name("K")
      ->capture_default_str();
  tools::add_duration(app, "--benchtime", opt.benchtime,
                      "Least time of one measurement; 500ms without it");
  app.add_option("--seed", opt.seed, "Seed of the runtime and of the workloads' random numbers")
      ->capture_default_str();
  app.add_option("--json", opt.json_path, "Write the results to this file too")->type_name("FILE");
  app.add_flag(
      "--calibrate", opt.calibrate,
      "Measure the machine instead: a context switch, a locked exchange, a futex, a page fault");
  app.add_flag("--list", opt.list, "Print the workloads' names and leave");
  app.add_flag("--in-process", opt.in_process,
               "Measure in this process, for profilers and debuggers");
  app.add_flag("--child", opt.child, "As --in-process, result lines only")->group("");
  if (std::optional<int> status = tools::parse(app, argc, argv)) return *status;
  if (opt.calibrate) opt.procs = {1};
  return bench::benchmark(opt);
}
