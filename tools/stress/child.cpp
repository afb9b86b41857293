// The child process of weft-stress: rounds of scenarios under a runtime.
//
// A session is one start of the runtime, by run() or by Runtime, for some tens of rounds. A round
// starts several scenarios at once, beside them often a goroutine that changes the number of Ps,
// and waits for all. Then every goroutine must be gone and no descriptor be open that was not
// before.
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <weft/await.hpp>
#include <weft/chan.hpp>
#include <weft/dump.hpp>
#include <weft/fd.hpp>
#include <weft/panic.hpp>
#include <weft/runtime.hpp>
#include <weft/select.hpp>
#include <weft/test.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/stress/status.hpp"
#include "tools/stress/stress.hpp"

namespace stress {

namespace {

using namespace std::chrono_literals;

constexpr int kGoroutinesMax = 20'000;      // at once
constexpr int kGoroutinesMaxSmall = 1'500;  // TSan has 8,128 fibers, and slow ones
constexpr auto kSettleLimit = 10s;

Status* g_status = nullptr;

/// What every open descriptor is, sorted.
std::vector<std::string> open_descriptors() {
  std::vector<std::string> open;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    std::string target = std::filesystem::read_symlink(entry.path(), error).string();
    if (target.find("/proc/") == std::string::npos) open.push_back(target);  // not our own look
  }
  std::sort(open.begin(), open.end());
  return open;
}

std::vector<Scenario> scenarios_of(std::string_view workload) {
  struct Set {
    std::string_view name;
    std::span<const Scenario> scenarios;
  };
  const Set sets[] = {{"spawn", spawn_scenarios()},
                      {"chan", chan_scenarios()},
                      {"select", select_scenarios()},
                      {"timer", timer_scenarios()},
                      {"fd", fd_scenarios()}};
  std::vector<Scenario> chosen;
  for (const Set& set : sets) {
    if (workload != "mix" && workload != set.name) continue;
    chosen.insert(chosen.end(), set.scenarios.begin(), set.scenarios.end());
  }
  return chosen;
}

/// The first use of everything that keeps a descriptor or a thread for good.
void warm_up() {
  int ends[2];
  STRESS_CHECK(::pipe(ends) == 0, "no pipe");
  (void)weft::wait_fd(ends[0], weft::Io::Read, weft::now() + 1ms);
  ::close(ends[0]);
  ::close(ends[1]);
  weft::blocking([] { ::sched_yield(); });
  weft::sleep_for(1ms);
}

void no_more_descriptors_than(const std::vector<std::string>& before) {
  std::vector<std::string> now = open_descriptors();
  // A report about goroutines that wait for a thread reads symbols; it may still be at it.
  for (weft::Time limit = weft::now() + kSettleLimit;
       now.size() > before.size() && weft::now() < limit;) {
    weft::sleep_for(1ms);
    now = open_descriptors();
  }
  if (now.size() <= before.size()) return;
  std::vector<std::string> added;
  std::set_difference(now.begin(), now.end(), before.begin(), before.end(),
                      std::back_inserter(added));
  std::string names;
  for (const std::string& name : added) names += " " + name;
  fail("%zu descriptors are open after the round, %zu before; new are%.300s", now.size(),
       before.size(), names.c_str());
}

/// Sets another number of Ps every now and then until `stop` is closed.
void change_procs(Rng rng, int procs, weft::RecvChan<void> stop) {
  while (weft::select(weft::recv(stop), weft::timeout(rng.micros(5'000))) == 1) {
    weft::set_procs(rng.between(1, std::min(2 * procs, 256)));
    beat();
  }
}

class Rounds {
 public:
  Rounds(const Run& run, std::chrono::steady_clock::time_point end)
      : run_(run), end_(end), scenarios_(scenarios_of(run.workload)), round_(run.first_round) {}

  bool over() const { return std::chrono::steady_clock::now() >= end_; }
  std::uint64_t next_round() const { return round_; }

  /// Runs up to `count` rounds, in a goroutine that is the only one but for `others`.
  void session(int count, int others) {
    warm_up();
    const std::vector<std::string> descriptors = open_descriptors();
    for (int i = 0; i < count && !over(); i++, round_++) {
      one();
      if (!weft::settle(1 + others, kSettleLimit)) {
        std::string dump = weft::dump_goroutines();
        std::fprintf(stderr, "%s\n", dump.c_str());
        fail("%d goroutines are left after the round", weft::num_goroutines() - 1 - others);
      }
      no_more_descriptors_than(descriptors);
      g_status->rounds_done.fetch_add(1, std::memory_order_relaxed);
    }
  }

 private:
  void one() {
    const bool mix = std::string_view(run_.workload) == "mix";
    Rng rng(run_.seed + round_ * 0xd1342543de82ef95);
    rng = rng.fork();
    const int parallel = mix ? rng.between(3, 8) : rng.between(1, 4);
    const int goroutines = (run_.small ? kGoroutinesMaxSmall : kGoroutinesMax) / parallel - 8;

    std::vector<const Scenario*> chosen;
    std::string names;
    for (int i = 0; i < parallel; i++) {
      chosen.push_back(&scenarios_[rng.below(scenarios_.size())]);
      names += (i == 0 ? "" : ", ") + std::string(chosen.back()->name);
    }
    g_status->round.store(round_, std::memory_order_relaxed);
    std::snprintf(g_status->scenarios, sizeof g_status->scenarios, "%s", names.c_str());
    plant();

    auto stop = weft::make_chan<void>();
    weft::WaitGroup changer, all;
    const bool changes = rng.chance(mix ? 60 : 30);
    Rng changes_rng = rng.fork();
    if (changes) changer.go(change_procs, changes_rng, run_.procs, stop);
    for (const Scenario* scenario : chosen) {
      all.go([this, scenario, goroutines, fork = rng.fork()] {
        Context context{fork, goroutines, run_.procs, run_.small};
        scenario->run(context);
        beat();
      });
    }
    all.wait();
    stop.close();
    changer.wait();
    if (changes) weft::set_procs(run_.procs);
  }

  /// Makes the fault that the tool's own tests ask for.
  void plant() {
    const std::string_view fault = run_.plant;
    if (fault.empty() || round_ < run_.first_round + 2) return;
    if (fault == "finding") fail("planted");
    if (fault == "fatal") weft::fatal("planted");
    if (fault == "panic") weft::go([] { weft::panic("planted"); });
    if (fault == "crash") std::abort();
    if (fault == "leak") {
      weft::go({.name = "planted"}, [] { weft::sleep_for(1h); });
    }
    if (fault == "hang") {
      weft::sleep_for(1h);  // a timer is pending: this is no deadlock for the runtime
    }
    if (fault == "spin") {
      for (volatile bool forever = true; forever;) {
      }
    }
  }

  const Run& run_;
  std::chrono::steady_clock::time_point end_;
  std::vector<Scenario> scenarios_;
  std::uint64_t round_;
};

/// A session under Runtime, with goroutines that stay parked and must be unwound by stop().
void embedded_session(Rounds& rounds, const weft::Config& config, Rng rng) {
  std::atomic<int> unwound{0};
  int parked = 0;
  {
    weft::Runtime runtime{config};
    if (std::error_code error = runtime.start())
      fail("Runtime::start: %s", error.message().c_str());
    const int stay = rng.between(0, 10);
    std::promise<void> ended;
    runtime.go([&] {
      struct Counted {
        std::atomic<int>& count;
        ~Counted() { count++; }
      };
      auto never = weft::make_chan<void>();
      for (int i = 0; i < stay; i++) {
        weft::go([&unwound, never, i] {
          Counted counted{unwound};
          if (i % 3 == 0) {
            never.recv();
          } else if (i % 3 == 1) {
            weft::sleep_for(24h);
          } else {
            weft::select(weft::recv(never), weft::timeout(24h));
          }
        });
        parked++;
      }
      rounds.session(rng.between(1, 20), stay);
      ended.set_value();
    });
    ended.get_future().wait();
    weft::StopResult result = runtime.stop(100ms);
    STRESS_CHECK(result.abandoned.empty(), "Runtime::stop abandoned goroutine %llu (%s)",
                 static_cast<unsigned long long>(result.abandoned[0].id),
                 result.abandoned[0].reason.c_str());
  }
  STRESS_CHECK(unwound == parked, "%d of %d parked goroutines were unwound by Runtime::stop",
               unwound.load(), parked);
}

}  // namespace

void beat(std::uint64_t n) {
  g_status->beats[weft::goid() % kBeatShards].n.fetch_add(n, std::memory_order_relaxed);
}

void fail(const char* format, ...) {
  // The first finding counts; whoever comes later waits for the end.
  if (g_status->finding_taken.exchange(1, std::memory_order_relaxed) != 0) {
    for (;;) ::pause();
  }
  va_list args;
  va_start(args, format);
  std::vsnprintf(g_status->finding, sizeof g_status->finding, format, args);
  va_end(args);
  g_status->finding_ready.store(1, std::memory_order_relaxed);
  std::fflush(stderr);
  ::_exit(1);
}

void pause(Rng& rng) {
  switch (rng.below(8)) {
    case 0:
      weft::sleep_for(rng.micros(200));
      break;
    case 1:
      if (rng.chance(20)) {
        auto time = rng.micros(100);
        weft::blocking([&] { ::usleep(static_cast<useconds_t>(time.count())); });
      }
      break;
    case 2: {
      weft::SyscallRegion region;
      ::sched_yield();
      break;
    }
    case 3:
      break;
    default:
      weft::yield();
  }
}

int run_child(const Run& run, Status* status) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::signal(SIGPIPE, SIG_IGN);
  g_status = status;
  const auto begin = std::chrono::steady_clock::now();
  Rounds rounds(run, begin + std::chrono::nanoseconds(run.duration_ns));
  Rng rng(~run.seed);
  weft::Config config;
  config.procs = run.procs;
  config.seed = run.seed | 1;  // 0 would be a fresh one
  for (std::uint64_t session = 0; !rounds.over(); session++) {
    if (session % 4 == 3) {
      weft::dump_on_signal(SIGQUIT);
      embedded_session(rounds, config, rng.fork());
    } else {
      const int count = rng.between(1, 50);
      weft::run([&] { rounds.session(count, 0); }, config);
    }
  }
  status->finished.store(1, std::memory_order_relaxed);
  return 0;
}

}  // namespace stress
