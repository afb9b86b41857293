// Stopping goroutines from outside: the world at safepoints, the world at any instruction, one goroutine.
#include <weft/gc_hook.hpp>

#include <array>
#include <cstdlib>
#include <thread>

#include "tests/support/freeze.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;
using Counter = std::atomic<std::uint64_t>;

/// Two looks, some time apart, by a clock that needs no runtime call.
bool stands_still(const Counter& n) {
  const std::uint64_t before = n;
  const auto until = std::chrono::steady_clock::now() + 1ms;
  while (std::chrono::steady_clock::now() < until) {
  }
  return n == before;
}

void spin(Counter& n, std::atomic<bool>& stop, int kind) {
  while (!stop.load(std::memory_order_relaxed)) {
    if (kind == 1) {
      void* p = std::malloc(100);
      std::free(p);
    } else if (kind == 2) {
      safepoint();
    } else if (kind == 3) {
      yield();
    }
    n.fetch_add(1, std::memory_order_relaxed);
  }
}

TEST(Freeze, NobodyMovesWhileTheWorldIsFrozenAndEverybodyAfterwards) {
  for (int procs : {1, 2, 4}) {
    in_run({procs, 1}, [] {
      constexpr int kSpinners = 8;
      std::array<Counter, kSpinners> n{};
      std::atomic<bool> stop{false};
      WaitGroup wg;
      for (int i = 0; i < kSpinners; i++) wg.go([&, i] { spin(n[i], stop, i % 4); });
      Defer end{[&] {
        stop = true;
        wg.wait();
      }};
      for (auto& c : n) eventually([&] { return c != 0; });
      for (int round = 0; round < scaled(25, 8); round++) {
        ASSERT_TRUE(freeze_in_time());
        bool still = true;
        for (auto& c : n) still = still && stands_still(c);
        gc::thaw_world();
        EXPECT_TRUE(still);
        if (round % 4 == 0) yield();
      }
      const std::uint64_t before = n[0];
      EXPECT_TRUE(eventually([&] { return n[0] != before; }));
    });
  }
}

TEST(Freeze, APlainThreadFreezesARuntimeThatSleepsAndOneThatWorks) {
  Runtime rt{Config{.procs = 2, .use_env = false}};
  ASSERT_FALSE(rt.start());
  for (int i = 0; i < 50; i++) {
    ASSERT_TRUE(freeze_in_time());
    gc::thaw_world();
  }
  Counter n{0};
  std::atomic<bool> stop{false};
  for (int i = 0; i < 4; i++)
    rt.go([&] {
      while (!stop) {
        sleep_for(50us);
        n++;
      }
    });
  for (int i = 0; i < scaled(300, 50); i++) {
    ASSERT_TRUE(freeze_in_time());
    if (i % 30 == 0) {
      EXPECT_TRUE(stands_still(n));
    }
    gc::thaw_world();
  }
  stop = true;
  rt.stop(10s);
}

TEST(Freeze, ManyMayWantToStopTheWorldAtOnce) {
  each_run([] {
    WaitGroup wg;
    for (int g = 0; g < 6; g++)
      wg.go([g] {
        for (int i = 0; i < scaled(60, 15); i++) {
          if (g % 3 == 0) {
            EXPECT_TRUE(freeze_in_time());
            gc::thaw_world();
          } else if (g % 3 == 1) {
            gc::stop_world();
            gc::start_world();
          } else {
            set_procs(1 + i % 4);
          }
        }
      });
    wg.wait();
  });
}

TEST(Freeze, AThousandChangesOfProcsAgainstAThousandStops) {
  in_run({2, 1}, [] {
    constexpr int kTimes = scaled(1000, 150);
    const int before = procs();
    WaitGroup wg;
    wg.go([] {
      for (int i = 0; i < kTimes; i++) set_procs(1 + i % 6);
    });
    wg.go([] {
      for (int i = 0; i < kTimes; i++) {
        gc::stop_world();
        gc::start_world();
      }
    });
    wg.wait();
    set_procs(before);
  });
}

TEST(Freeze, AtASafepointStopNobodyWithAPRuns) {
  for (int procs : {1, 3}) {
    in_run({procs, 1}, [] {
      Counter n{0};
      std::atomic<bool> stop{false};
      WaitGroup wg;
      for (int i = 0; i < 6; i++) wg.go([&] { spin(n, stop, 3); });
      eventually([&] { return n != 0; });
      for (int i = 0; i < 20; i++) {
        gc::stop_world();
        EXPECT_TRUE(stands_still(n));
        gc::start_world();
        yield();
      }
      stop = true;
      wg.wait();
    });
  }
}

TEST(Freeze, AStopLeavesMostGoroutinesOnTheirThreads) {  // 66
  in_run({2, 1}, [] {
    std::atomic<bool> stop{false};
    std::array<std::atomic<pid_t>, 2> where{};
    WaitGroup wg;
    for (auto& w : where)
      wg.go([&] {
        while (!stop) {
          w = thread_now();
          safepoint();
        }
      });
    // The stopper is a plain thread: it takes no P from them. The best of some rounds: on a machine that is busy otherwise the
    // kernel decides who comes back first.
    int same = 0, all = 1;
    std::thread stopper([&] {
      for (int round = 0; round < 100 && same * 4 < all * 3; round++) {
        same = all = 0;
        for (int i = 0; i < scaled(40, 20); i++) {
          gc::stop_world();
          const pid_t before[2] = {where[0], where[1]};
          gc::start_world();
          for (auto& w : where) w = 0;
          for (std::size_t g = 0; g < 2; g++) {
            eventually([&] { return where[g] != 0; });
            all++;
            same += where[g] == before[g];
          }
        }
      }
      stop = true;
    });
    blocking([&] { stopper.join(); });
    wg.wait();
    EXPECT_GE(same * 4, all * 3) << same << " of " << all;
  });
}

TEST(Suspend, OneGoroutineStandsStillWhateverItDoesAndTheOthersRunOn) {
  for (int procs : {1, 2, 4}) {
    in_run({procs, 1}, [] {
      for (int kind = 0; kind < 4; kind++) {
        Counter n{0}, other{0};
        std::atomic<bool> stop{false};
        std::atomic<std::uint64_t> id{0};
        WaitGroup wg;
        wg.go([&] {
          id = goid();
          spin(n, stop, kind);
        });
        wg.go([&] { spin(other, stop, 3); });
        eventually([&] { return n != 0; });
        for (int round = 0; round < scaled(20, 5); round++) {
          ASSERT_TRUE(gc::suspend(id));
          EXPECT_TRUE(stands_still(n));
          const std::uint64_t theirs = other, its = n;
          EXPECT_TRUE(eventually([&] { return other != theirs; }));
          EXPECT_EQ(n.load(), its);
          gc::resume(id);
          EXPECT_TRUE(eventually([&] { return n != its; }));
        }
        stop = true;
        wg.wait();
      }
    });
  }
}

TEST(Suspend, AParkedGoroutineThatIsWokenStaysWhereItIs) {
  each_run([] {
    Chan<int> c = make_chan<int>();
    std::atomic<bool> went_on{false};
    const std::uint64_t id = go_parked("chan receive", [&, c] {
      EXPECT_EQ(c.recv(), 5);
      went_on = true;
    });
    ASSERT_TRUE(gc::suspend(id));
    ASSERT_TRUE(gc::suspend(id));
    c.send(5);
    for (int i = 0; i < 100; i++) yield();
    sleep_for(1ms);
    gc::resume(id);
    sleep_for(1ms);
    EXPECT_FALSE(went_on.load()) << "one of two resumes was enough";
    gc::resume(id);
    EXPECT_TRUE(eventually([&] { return went_on.load(); }));
  });
}

TEST(Suspend, OneThatHasNeverRunDoesNotStart) {
  in_run({1, 1}, [] {
    std::atomic<bool> ran{false};
    std::uint64_t id = 0;
    {
      // Nobody else runs before the suspension: one P, and it is ours.
      NoPreempt guard;
      go([&] { ran = true; });
      id = goid() + 1;
      while (!gc::suspend(id)) id++;
    }
    for (int i = 0; i < 50; i++) yield();
    sleep_for(1ms);
    EXPECT_FALSE(ran.load());
    gc::resume(id);
    EXPECT_TRUE(eventually([&] { return ran.load(); }));
  });
}

TEST(Suspend, OfNobodyIsFalseAndWrongUseIsAPanic) {
  in_run({2, 1}, [] {
    EXPECT_FALSE(gc::suspend(999'999'999));
    EXPECT_NE(panic_of([] { gc::suspend(goid()); }), "no panic");
    EXPECT_NE(panic_of([] { gc::resume(goid()); }), "no panic");
    EXPECT_NE(panic_of([] { gc::thaw_world(); }), "no panic");
    EXPECT_NE(panic_of([] { gc::start_world(); }), "no panic");
    gc::stop_world();
    EXPECT_NE(panic_of([] { gc::stop_world(); }), "no panic");
    EXPECT_NE(panic_of([] { gc::freeze_world(); }), "no panic");
    EXPECT_NE(panic_of([] { gc::thaw_world(); }), "no panic");
    gc::start_world();
    // Nothing is left locked.
    ASSERT_TRUE(freeze_in_time());
    gc::thaw_world();
  });
}

}  // namespace
}  // namespace weft::test
