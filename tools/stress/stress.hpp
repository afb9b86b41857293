// What the workloads of weft-stress share: chance, the finding, the heartbeat, and how a workload
// is written.
//
// A workload is a set of scenarios. A scenario runs in a goroutine, starts others, checks what must
// hold, and returns when everything it started has ended. What it does follows from its Rng alone,
// and that from the seed, the round and its place in the round: the same command does the same
// work, in whatever order the scheduler runs it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <weft/blocking.hpp>
#include <weft/go.hpp>

namespace stress {

/// splitmix64: every state is a good seed, so that streams can be forked.
class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// Below n; 0 for n = 0.
  std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : next() % n; }
  int between(int low, int high) {
    return low + static_cast<int>(below(static_cast<std::uint64_t>(high - low) + 1));
  }
  bool chance(int percent) { return below(100) < static_cast<std::uint64_t>(percent); }
  std::chrono::microseconds micros(int high) {
    return std::chrono::microseconds(below(static_cast<std::uint64_t>(high) + 1));
  }
  Rng fork() { return Rng(next()); }

 private:
  std::uint64_t state_;
};

/// What a scenario is given.
struct Context {
  Rng rng;
  int goroutines;  // that it may have at once
  int procs;
  bool small;  // a slow build: fewer operations

  /// A number of repetitions: up to `high`, far fewer in a small run.
  int times(int low, int high) {
    if (small) high = low + (high - low) / 10;
    return rng.between(low, high);
  }
  /// A number of goroutines: at least 2, at most `high` and what is allowed.
  int some_goroutines(int high) {
    int most = high < goroutines ? high : goroutines;
    return most <= 2 ? 2 : rng.between(2, most);
  }
};

struct Scenario {
  const char* name;
  void (*run)(Context& c);
};

std::span<const Scenario> spawn_scenarios();
std::span<const Scenario> chan_scenarios();
std::span<const Scenario> select_scenarios();
std::span<const Scenario> timer_scenarios();
std::span<const Scenario> fd_scenarios();

/// Tells the parent that work is done: `n` operations. Any thread.
void beat(std::uint64_t n = 1);

/// Ends the run with a finding. Any thread.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

#define STRESS_CHECK(condition, ...)               \
  do {                                             \
    if (!(condition)) ::stress::fail(__VA_ARGS__); \
  } while (false)

/// Waits where the time is short: one of the ways to let others run.
void pause(Rng& rng);

/// A plain thread beside the goroutines. Destroyed by a goroutine, which lets others run until the
/// thread has ended.
class Thread {
 public:
  template <class F>
  explicit Thread(F f) : thread_(std::move(f)) {}
  Thread(Thread&&) = default;
  ~Thread() {
    if (thread_.joinable()) weft::blocking([this] { thread_.join(); });
  }

 private:
  std::thread thread_;
};

/// Starts `f` as a goroutine or, in one of four cases, as a plain thread that `threads` joins.
template <class F>
void go_or_thread(Rng& rng, std::vector<Thread>& threads, F f) {
  if (rng.chance(25)) {
    threads.emplace_back(std::move(f));
  } else {
    weft::go(std::move(f));
  }
}

/// Each of n values is marked exactly once.
class Marks {
 public:
  explicit Marks(std::size_t n) : marks_(n) {}
  void mark(std::size_t i, const char* what) {
    STRESS_CHECK(i < marks_.size(), "%s: value %zu was never there", what, i);
    STRESS_CHECK(marks_[i].exchange(1, std::memory_order_relaxed) == 0, "%s: value %zu came twice",
                 what, i);
  }
  void all_marked(const char* what) const {
    for (std::size_t i = 0; i < marks_.size(); i++) {
      STRESS_CHECK(marks_[i].load(std::memory_order_relaxed) == 1, "%s: value %zu of %zu is lost",
                   what, i, marks_.size());
    }
  }

 private:
  std::vector<std::atomic<unsigned char>> marks_;
};

}  // namespace stress
