// Goroutines come and go: storms, trees, migration, exceptions, goexit, foreign threads, blocking
// calls.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <string>
#include <vector>

#include <weft/blocking.hpp>
#include <weft/chan.hpp>
#include <weft/defer.hpp>
#include <weft/go.hpp>
#include <weft/panic.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/stress/stress.hpp"

namespace stress {

namespace {

using namespace std::chrono_literals;

struct Job {
  Marks* marks;
  weft::WaitGroup* done;
  void run(std::size_t i, Rng rng) {
    if (rng.chance(10)) pause(rng);
    marks->mark(i, "storm");
    beat();
    done->done();
  }
};

/// Every way to start a goroutine, as fast as possible; each of them runs once.
void storm(Context& c) {
  const auto n = static_cast<std::size_t>(c.some_goroutines(c.goroutines));
  Marks marks(n);
  weft::WaitGroup done;
  Job job{&marks, &done};
  for (std::size_t i = 0; i < n; i++) {
    Rng rng = c.rng.fork();
    auto body = [&job, i, rng] { job.run(i, rng); };
    done.add(1);
    switch (c.rng.below(6)) {
      case 0:
        weft::go(&Job::run, &job, i, rng);
        break;
      case 1: {
        std::array<std::uint64_t, 32> large{};  // a closure that does not fit the descriptor
        large.back() = i;
        weft::go([&job, large, rng] { job.run(large.back(), rng); });
        break;
      }
      case 2:
        weft::go(
            {.name = "storm " + std::to_string(i), .stack_bytes = 16u << (2 * c.rng.below(4) + 10)},
            body);
        break;
      case 3:
        if (!weft::try_go(body)) weft::go(body);
        break;
      case 4:
        if (!weft::try_go({.name = "tried"}, body)) weft::go(body);
        break;
      default:
        weft::go(body);
    }
    if (c.rng.chance(1)) pause(c.rng);
  }
  done.wait();
  marks.all_marked("storm");
}

/// A tree that its Rng alone describes.
int tree_children(Rng& rng, int depth) { return depth == 0 ? 0 : rng.between(0, 4); }

int tree_size(Rng rng, int depth) {
  int size = 1;
  for (int children = tree_children(rng, depth); children > 0; children--) {
    size += tree_size(rng.fork(), depth - 1);
  }
  return size;
}

/// Counts its own subtree.
void tree_node(Rng rng, int depth, weft::SendChan<int> parent) {
  int size = 1;
  auto sizes = weft::make_chan<int>();
  int children = tree_children(rng, depth);
  for (int i = 0; i < children; i++) weft::go(tree_node, rng.fork(), depth - 1, sizes);
  for (int i = 0; i < children; i++) size += sizes.recv_or();
  beat();
  parent.send(size);
}

void tree(Context& c) {
  int depth = c.rng.between(1, 8);
  Rng rng = c.rng.fork();
  int expected = tree_size(rng, depth);
  while (expected > c.goroutines) expected = tree_size(rng, --depth);
  auto size = weft::make_chan<int>();
  weft::go(tree_node, rng, depth, size);
  int counted = size.recv_or();
  STRESS_CHECK(counted == expected, "tree: %d of %d goroutines counted", counted, expected);
}

/// Starts its successor and ends, many times over: descriptors and stacks are used again.
void relay(Context& c) {
  const int runners = c.some_goroutines(64), laps = c.times(50, 2'000);
  std::atomic<int> ended{0};
  weft::WaitGroup done;
  struct Lap {
    std::atomic<int>& ended;
    weft::WaitGroup& done;
    void run(int left) {
      beat();
      if (left == 0) {
        ended++;
        return done.done();
      }
      weft::go(&Lap::run, this, left - 1);
    }
  } lap{ended, done};
  done.add(runners);
  for (int i = 0; i < runners; i++) weft::go(&Lap::run, &lap, laps);
  done.wait();
  STRESS_CHECK(ended == runners, "relay: %d of %d came in", ended.load(), runners);
}

thread_local std::uint64_t scratch = 0;

/// Between two runtime calls a goroutine stays on its thread, alone. Out of line, so that the
/// address of the thread's variable is computed here.
[[gnu::noinline]] bool scratch_is_private(std::uint64_t id) {
  scratch = id;
  for (int i = 0; i < 200; i++) {
    if (*const_cast<volatile std::uint64_t*>(&scratch) != id) return false;
  }
  return true;
}

/// Yields at every depth of a recursion, with locals that must be there afterwards.
std::uint64_t dive(Rng& rng, int depth, std::uint64_t id) {
  std::array<std::uint64_t, 40> locals;
  for (std::size_t i = 0; i < locals.size(); i++) locals[i] = id * 31 + i;
  pause(rng);
  STRESS_CHECK(weft::goid() == id, "migrate: goid changed from %llu to %llu",
               static_cast<unsigned long long>(id), static_cast<unsigned long long>(weft::goid()));
  STRESS_CHECK(scratch_is_private(id), "migrate: another goroutine ran on this thread");
  std::uint64_t sum = depth == 0 ? 0 : dive(rng, depth - 1, id);
  pause(rng);
  for (std::size_t i = 0; i < locals.size(); i++) {
    STRESS_CHECK(locals[i] == id * 31 + i, "migrate: a local changed while parked");
    sum += locals[i];
  }
  beat();
  return sum;
}

/// Goroutines move between threads with their stacks and ids.
void migrate(Context& c) {
  const int n = c.some_goroutines(400), depth = c.times(1, 60);
  std::vector<std::uint64_t> ids(static_cast<std::size_t>(n));
  weft::WaitGroup done;
  for (int i = 0; i < n; i++) {
    done.go([&, i, rng = c.rng.fork(), depth = c.rng.between(1, depth)]() mutable {
      ids[static_cast<std::size_t>(i)] = weft::goid();
      dive(rng, depth, weft::goid());
    });
  }
  done.wait();
  std::sort(ids.begin(), ids.end());
  STRESS_CHECK(std::adjacent_find(ids.begin(), ids.end()) == ids.end() && ids[0] != 0,
               "migrate: two goroutines have one id");
}

struct Thrown {
  int value;
  std::string text;
};

struct YieldsWhenDestroyed {
  Rng& rng;
  int expected;
  ~YieldsWhenDestroyed() {
    pause(rng);
    int now = std::uncaught_exceptions();
    STRESS_CHECK(now == expected, "exceptions: %d in flight after a switch, %d expected", now,
                 expected);
  }
};

/// Throws, suspends while it unwinds, catches, suspends in the handler, throws and catches another
/// one there, rethrows: each goroutine gets its own exceptions back.
void throw_and_catch(Rng& rng, int id, int depth) {
  try {
    try {
      YieldsWhenDestroyed yields{rng, 1};
      if (rng.chance(30)) weft::panic(Thrown{id, "panic"});
      throw Thrown{id, "thrown"};
    } catch (const weft::Panic& p) {
      pause(rng);
      const Thrown* value = p.value<Thrown>();
      STRESS_CHECK(value != nullptr && value->value == id, "exceptions: a panic lost its value");
      throw Thrown{id, "thrown"};
    } catch (const Thrown& e) {
      pause(rng);
      STRESS_CHECK(e.value == id && e.text == "thrown", "exceptions: caught %d instead of %d",
                   e.value, id);
      if (depth > 0) throw_and_catch(rng, id + 1, depth - 1);
      pause(rng);
      STRESS_CHECK(e.value == id, "exceptions: became %d instead of %d in its handler", e.value,
                   id);
      std::exception_ptr current = std::current_exception();
      STRESS_CHECK(current != nullptr, "exceptions: no current exception in a handler");
      pause(rng);
      throw;
    }
  } catch (const Thrown& e) {
    pause(rng);
    STRESS_CHECK(e.value == id, "exceptions: rethrown %d instead of %d", e.value, id);
  }
  STRESS_CHECK(std::uncaught_exceptions() == 0,
               "exceptions: one is still in flight after its catch");
  beat();
}

void exceptions(Context& c) {
  const int n = c.some_goroutines(200), times = c.times(2, 60);
  weft::WaitGroup done;
  for (int i = 0; i < n; i++) {
    done.go([i, times, rng = c.rng.fork()]() mutable {
      for (int k = 0; k < times; k++) throw_and_catch(rng, i * 1'000 + k * 10, rng.between(0, 3));
    });
  }
  done.wait();
}

/// Some return and some goexit from some depth, through handlers that rethrow: destructors and
/// deferred calls run once.
void exit_early(Context& c) {
  const int n = c.some_goroutines(1'000);
  std::atomic<int> deferred{0}, destroyed{0}, after{0};
  weft::WaitGroup done;
  struct Guard {
    std::atomic<int>& count;
    ~Guard() { count++; }
  };
  struct Walk {
    std::atomic<int>& destroyed;
    void down(Rng& rng, int depth, bool exit) {
      Guard guard{destroyed};
      if (depth == 0) {
        pause(rng);
        if (exit) weft::goexit();
      } else if (rng.chance(50)) {
        down(rng, depth - 1, exit);
      } else {
        try {
          down(rng, depth - 1, exit);
        } catch (...) {
          pause(rng);
          throw;
        }
      }
    }
  } walk{destroyed};
  int guards = 0, returning = 0;
  for (int i = 0; i < n; i++) {
    int depth = c.rng.between(0, 6);
    bool exit = c.rng.chance(70);
    guards += depth + 1;
    returning += exit ? 0 : 1;
    done.go([&, depth, exit, rng = c.rng.fork()]() mutable {
      weft::Defer count{[&] {
        pause(rng);
        deferred++;
      }};
      walk.down(rng, depth, exit);
      after++;
    });
  }
  done.wait();
  STRESS_CHECK(after == returning, "goexit: %d of %d goroutines returned", after.load(), returning);
  STRESS_CHECK(deferred == n, "goexit: %d of %d deferred calls ran", deferred.load(), n);
  STRESS_CHECK(destroyed == guards, "goexit: %d of %d destructors ran", destroyed.load(), guards);
  beat(static_cast<std::uint64_t>(n));
}

/// Plain threads start goroutines and wait for them.
void from_threads(Context& c) {
  const int threads = c.rng.between(1, 4),
            each = c.times(20, 2'000) % std::max(1, c.goroutines / 4);
  std::atomic<int> ran{0};
  {
    std::vector<Thread> starters;
    for (int t = 0; t < threads; t++) {
      starters.emplace_back([&, rng = c.rng.fork()]() mutable {
        STRESS_CHECK(weft::goid() == 0, "from_threads: a plain thread has a goid");
        weft::WaitGroup done;
        auto last = weft::make_chan<int>(1);
        for (int i = 0; i < each; i++) {
          done.go([&ran, fork = rng.fork()]() mutable {
            if (fork.chance(20)) pause(fork);
            ran++;
            beat();
          });
        }
        weft::go([&done, last] {
          done.wait();
          last.send(1);
        });
        if (rng.chance(50)) done.wait();
        STRESS_CHECK(last.recv() == 1, "from_threads: nothing came back");
      });
    }
  }
  STRESS_CHECK(ran == threads * each, "from_threads: %d of %d goroutines ran", ran.load(),
               threads * each);
}

/// Calls that block their thread beside goroutines that only yield.
void blocking_calls(Context& c) {
  const int n = c.some_goroutines(60), times = c.times(2, 30);
  std::atomic<int> returned{0};
  weft::WaitGroup done;
  for (int i = 0; i < n; i++) {
    done.go([&, i, rng = c.rng.fork()]() mutable {
      for (int k = 0; k < times; k++) {
        auto time = static_cast<useconds_t>(rng.micros(rng.chance(10) ? 2'000 : 100).count());
        int expected = i * times + k;
        if (rng.chance(50)) {
          int got = weft::blocking(
              [=](int v) {
                ::usleep(time);
                return v;
              },
              expected);
          STRESS_CHECK(got == expected, "blocking: returned %d instead of %d", got, expected);
        } else {
          weft::SyscallRegion region;
          ::usleep(time);
        }
        returned++;
        beat();
        for (int y = rng.between(0, 5); y > 0; y--) weft::yield();
      }
    });
  }
  done.wait();
  STRESS_CHECK(returned == n * times, "blocking: %d of %d calls returned", returned.load(),
               n * times);
}

/// Loops that meet nothing but a safepoint, and a goroutine that wants to run beside them. Short:
/// until they end, whatever else is in this round waits for its slices.
void safepoints(Context& c) {
  std::atomic<bool> stop{false};
  weft::WaitGroup done;
  for (int i = c.some_goroutines(4); i > 0; i--) {
    done.go([&] {
      while (!stop.load(std::memory_order_relaxed)) weft::safepoint();
      beat();
    });
  }
  weft::yield();
  weft::sleep_for(c.rng.micros(10'000));
  stop = true;
  done.wait();
}

constexpr Scenario kScenarios[] = {
    {"storm", storm},
    {"tree", tree},
    {"relay", relay},
    {"migrate", migrate},
    {"exceptions", exceptions},
    {"goexit", exit_early},
    {"from_threads", from_threads},
    {"blocking", blocking_calls},
    {"safepoints", safepoints},
};

}  // namespace

std::span<const Scenario> spawn_scenarios() { return kScenarios; }

}  // namespace stress
