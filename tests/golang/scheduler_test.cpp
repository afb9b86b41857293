// What the scheduler promises to goroutines that run beside each other: progress, parallelism,
// fairness.
//
// A goroutine that computes here passes safepoints; what happens to one that does not is the
// preemption suite's subject.
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::microseconds;

TEST(Scheduler, YieldInALoopLetsAnotherReceive) {  // 41
  each_run([] {
    for (int round = 0; round < 20; round++) {
      Chan<bool> c = make_chan<bool>();
      Chan<bool> quit = make_chan<bool>(1);
      std::atomic<int64_t> yields{0};
      go([=] {
        (void)c.recv();
        quit.send(true);
      });
      c.send(true);
      while (quit.len() == 0) {
        yield();
        ASSERT_LT(++yields, 100'000'000);
      }
      (void)quit.recv();
    }
  });
}

TEST(Scheduler, YieldOfTheOnlyGoroutineReturns) {
  each_run([] {
    for (int i = 0; i < scaled(100000, 5000); i++) yield();
  });
}

TEST(Scheduler, GoroutinesRunOnAllProcsAtOnce) {  // 43
  const int cpus = static_cast<int>(std::thread::hardware_concurrency());
  for (int p = 2; p <= std::min(4, cpus); p++) {
    in_run({p, 5}, [p] {
      EXPECT_EQ(procs(), p);
      for (int round = 0; round < 10; round++) {
        // Also after all Ms have been parked, and when started by a goroutine that was started.
        if (round % 2) sleep_for(1ms);
        Chan<bool> done = make_chan<bool>();
        std::atomic<uint32_t> x{0};
        auto start = [=, &x] {
          for (int g = 0; g < p; g++)
            go([=, &x] {
              // Each waits for its turn on the shared counter: that needs all of them on a P.
              for (uint32_t i = 0; i < 3; i++) {
                const uint32_t expected = static_cast<uint32_t>(p) * i + static_cast<uint32_t>(g);
                while (x.load() != expected) safepoint();
                x = expected + 1;
              }
              done.send(true);
            });
        };
        if (round % 3 == 0)
          go(start);
        else
          start();
        for (int g = 0; g < p; g++) ASSERT_EQ(done.recv_for(60s).status, RecvStatus::Ok);
      }
    });
  }
}

// `spin` runs forever on two goroutines that hand something back and forth; a 20 ms timer must
// still fire.
void pair_leaves_timers_alone(bool with_syscalls) {
  for (int attempt = 0;; attempt++) {
    Chan<bool> c = make_chan<bool>();
    std::atomic<bool> stop{false};
    WaitGroup wg;
    for (int i = 0; i < 2; i++)
      wg.go([&, c] {
        for (;;) {
          if (with_syscalls) {
            SyscallRegion r;
            (void)::getppid();
          }
          if (select(recv(c), send(c, true), otherwise()) == 2 && stop) return;
          if (stop) return;
          safepoint();
        }
      });
    const Time before = now();
    sleep_for(20ms);
    const auto took = now() - before;
    stop = true;
    wg.wait();
    EXPECT_GE(took, 20ms);
    if (took < 200ms) return;
    if (attempt == 5) {
      ADD_FAILURE() << "a 20 ms sleep took " << took.count() << " ns beside two busy goroutines";
      return;
    }
  }
}

TEST(Scheduler, PingPongDoesNotStarveATimer) {  // 45
  each_run([] { pair_leaves_timers_alone(false); });
  // The blocking form: each hand-over readies the other, which takes the P at once.
  each_run([] {
    Chan<int> a = make_chan<int>(), b = make_chan<int>();
    WaitGroup wg;
    wg.go([=] {
      for (int v : a) b.send(v + 1);
      b.close();
    });
    std::atomic<bool> stop{false};
    wg.go([=, &stop] {
      for (int i = 0; !stop; i++) {
        a.send(i);
        (void)b.recv();
      }
      a.close();
    });
    auto best = 1000h + 0ns;
    for (int i = 0; i < 5; i++) {
      const Time before = now();
      sleep_for(20ms);
      best = std::min<std::chrono::nanoseconds>(best, now() - before);
    }
    stop = true;
    wg.wait();
    EXPECT_GE(best, 20ms);
    EXPECT_LT(best, 200ms);
  });
}

TEST(Scheduler, PingPongWithSystemCallsDoesNotStarveATimer) {  // 46
  each_run([] { pair_leaves_timers_alone(true); });
}

TEST(Scheduler, ASpinLoopWithSafepointsIsPreempted) {  // 47
  in_run({1, 1}, [] {
    for (int i = 0; i < 2; i++) {
      std::atomic<int> turn{0};
      const int limit = 10;
      Chan<void> done = make_chan<void>();
      go([&, done] {
        for (int k = 0; k < limit; k++) {
          while (turn.load() != 2 * k + 1) safepoint();
          turn = 2 * k + 2;
        }
        done.send();
      });
      for (int k = 0; k < limit; k++) {
        turn = 2 * k + 1;
        while (turn.load() != 2 * k + 2) safepoint();
      }
      done.recv();
    }
  });
}

TEST(Scheduler, AStopRequestStopsSpinningGoroutines) {  // 48
  each_run([] {
    const int p = procs();
    std::atomic<bool> stop{false};
    WaitGroup wg;
    for (int i = 0; i < p + 1; i++)
      wg.go([&] {
        while (!stop) safepoint();
      });
    // set_procs stops the world at safepoints.
    const Time before = now();
    for (int i = 0; i < 20; i++) {
      EXPECT_EQ(set_procs(p), p);
      yield();
    }
    EXPECT_LT(now() - before, 20s);
    stop = true;
    wg.wait();
  });
}

TEST(Scheduler, ShortRunningGoroutinesDoNotStarveOthers) {  // 50
  in_run({1, 3}, [] {
    // Each starts its successor before it ends; beside them main still gets its turns.
    std::atomic<bool> stop{false};
    std::atomic<int> alive{0};
    struct Chain {
      std::atomic<bool>& stop;
      std::atomic<int>& alive;
      void operator()() const {
        if (!stop)
          go(*this);
        else
          alive--;
      }
    };
    for (int i = 0; i < 4; i++) {
      alive++;
      go(Chain{stop, alive});
    }
    for (int i = 0; i < 1000; i++) yield();
    const Time before = now();
    sleep_for(5ms);
    EXPECT_LT(now() - before, 5s);
    stop = true;
    eventually([&] { return alive == 0; });
  });
}

TEST(Scheduler, OldNewcomersAreNotStarvedByLaterOnes) {
  each_run([] {
    // Started first, while a chain in which each starts its successor never lets the queue of
    // newcomers become empty.
    std::atomic<int> old{0}, alive{2};
    std::atomic<bool> stop{false};
    struct Chain {
      std::atomic<bool>& stop;
      std::atomic<int>& alive;
      void operator()() const {
        if (!stop)
          go(*this);
        else
          alive--;
      }
    };
    for (int i = 0; i < 10; i++) go([&] { old++; });
    go(Chain{stop, alive});
    go(Chain{stop, alive});
    eventually([&] { return old == 10; });
    // And one that joins a ping-pong, which never leaves its runnext empty.
    Chan<int> a = make_chan<int>(), b = make_chan<int>();
    std::atomic<bool> joined{false};
    go([&] { joined = true; });
    go([=] {
      for (int v : a) b.send(v);
    });
    for (int i = 0; i < 1000 || !joined; i++) {
      a.send(i);
      (void)b.recv();
    }
    a.close();
    stop = true;
    eventually([&] { return alive == 0; });
  });
}

void compute(int steps) {
  std::atomic<int> sink{0};
  for (int i = 0; i < steps; i++) sink.store(i, std::memory_order_relaxed);
}

TEST(Scheduler, HogPairsAndLightPairsShareOneProc) {  // 52
  in_run({1, 4}, [] {
    constexpr int kHog = scaled(100000, 20000);
    constexpr int kLight = 1000;
    // Four goroutines take turns in two rings; the light pair computes less per turn. Counted are
    // turns.
    std::atomic<bool> stop{false};
    std::atomic<int64_t> hog_turns{0}, light_turns{0};
    WaitGroup wg;
    auto pair = [&](int work, std::atomic<int64_t>& turns) {
      Chan<bool> ping = make_chan<bool>(), pong = make_chan<bool>();
      wg.go([=, &turns, &stop] {
        while (!stop) {
          compute(work);
          turns++;
          ping.send(true);
          (void)pong.recv();
        }
        ping.close();
      });
      wg.go([=] {
        for (bool b : ping) {
          compute(work);
          pong.send(b);
        }
      });
    };
    for (int i = 0; i < 2; i++) {
      pair(kHog, hog_turns);
      pair(kLight, light_turns);
    }
    // When the hogs have had their turns, the light pairs have not been left behind, nor far ahead
    // of their slices.
    eventually([&] { return hog_turns >= 200; });
    stop = true;
    const int64_t h = hog_turns, l = light_turns;
    wg.wait();
    EXPECT_GE(l, h / 20);
  });
}

TEST(Scheduler, StartsWith1024Procs) {  // 64
  if (kTsan) return;  // idle Ps cost nothing, but each M that starts is a TSan context
  in_run({1024, 1}, [] {
    EXPECT_EQ(procs(), 1024);
    WaitGroup wg;
    std::atomic<int> n{0};
    for (int i = 0; i < 2000; i++) wg.go([&] { n++; });
    wg.wait();
    EXPECT_EQ(n.load(), 2000);
  });
}

TEST(Scheduler, ChangingProcsAgainstStopsAndARespawningGoroutineDoesNotDeadlock) {  // 65
  each_run([] {
    constexpr int kTimes = scaled(1000, 150);
    const int before = procs();
    std::atomic<bool> stop{false};
    std::atomic<int> alive{1};
    struct Respawn {
      std::atomic<bool>& stop;
      std::atomic<int>& alive;
      void operator()() const {
        if (!stop)
          go(*this);
        else
          alive--;
      }
    };
    go(Respawn{stop, alive});
    WaitGroup wg;
    wg.go([&] {
      for (int i = 0; i < kTimes; i++) set_procs(1 + i % 8);
    });
    wg.go([&] {
      for (int i = 0; i < kTimes / 10; i++) {
        const std::string d = dump_goroutines();
        EXPECT_NE(d.find("goroutine "), std::string::npos);
      }
    });
    wg.wait();
    stop = true;
    eventually([&] { return alive == 0; });
    set_procs(before);
    EXPECT_EQ(procs(), before);
  });
}

TEST(Scheduler, SetProcsReturnsTheOldValueAndBelowOneOnlyReads) {
  in_run({3, 1}, [] {
    EXPECT_EQ(procs(), 3);
    EXPECT_EQ(set_procs(0), 3);
    EXPECT_EQ(set_procs(-1), 3);
    EXPECT_EQ(set_procs(5), 3);
    EXPECT_EQ(procs(), 5);
    // Goroutines and timers of removed Ps go on.
    WaitGroup wg;
    std::atomic<int> n{0};
    for (int i = 0; i < 500; i++)
      wg.go([&, i] {
        if (i % 3 == 0)
          sleep_for(microseconds(i * 10));
        else
          yield();
        n++;
      });
    EXPECT_EQ(set_procs(1), 5);
    wg.wait();
    EXPECT_EQ(n.load(), 500);
    EXPECT_EQ(set_procs(3), 1);
  });
}

TEST(Scheduler, EverySixtyFirstPickIsFromTheGlobalQueue) {  // 67
  in_run({1, 7}, [] {
    // Two that ready each other keep the local queue from ever being empty; one that comes from a
    // plain thread enters through the global queue and must run all the same.
    Chan<int> a = make_chan<int>(), b = make_chan<int>();
    std::atomic<bool> stop{false};
    WaitGroup wg;
    wg.go([=, &stop] {
      while (!stop) {
        a.send(1);
        (void)b.recv();
      }
      a.close();
    });
    wg.go([=] {
      for (int v : a) b.send(v);
    });
    for (int i = 0; i < 4; i++)
      wg.go([&] {
        while (!stop) yield();
      });
    std::atomic<int> ran{0};
    std::thread outside([&] {
      for (int i = 0; i < 20; i++) go([&] { ran++; });
    });
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (ran < 20 && std::chrono::steady_clock::now() < deadline) sleep_for(1ms);
    EXPECT_EQ(ran.load(), 20);
    stop = true;
    wg.wait();
    outside.join();
  });
}

TEST(Scheduler, NeitherAChainNorAFullGlobalQueueStarvesTheLocalOne) {
  in_run({1, 7}, [] {
    for (int round = 0; round < 10; round++) {
      // Two that ready each other, and some that yield: once one of these is in the global queue, so are all.
      Chan<int> a = make_chan<int>(), b = make_chan<int>();
      std::atomic<bool> stop{false};
      std::atomic<bool> late{false};
      const auto limit = std::chrono::steady_clock::now() + kPatience;
      WaitGroup wg;
      wg.go([=, &stop, &late] {
        while (!stop && !late) {
          if (std::chrono::steady_clock::now() > limit) late = true;
          a.send(1);
          (void)b.recv();
        }
        a.close();
      });
      wg.go([=] {
        for (int v : a) b.send(v);
      });
      for (int i = 0; i < 4; i++)
        wg.go([&] {
          while (!stop && !late) yield();
        });
      std::thread([] { go([] {}); }).join();
      for (int i = 0; i < 5; i++) sleep_for(1ms);  // whose time has come is queued locally
      EXPECT_FALSE(late);
      stop = true;
      wg.wait();
    }
  });
}

TEST(Scheduler, ARunnextChainSharesOneSlice) {  // 68
  in_run({1, 8}, [] {
    auto best = 1000h + 0ns;
    for (int attempt = 0; attempt < 5; attempt++) {
      Chan<int> a = make_chan<int>(), b = make_chan<int>();
      std::atomic<bool> stop{false};
      WaitGroup wg;
      wg.go([=, &stop] {
        while (!stop) {
          a.send(1);
          (void)b.recv();
        }
        a.close();
      });
      wg.go([=] {
        for (int v : a) b.send(v);
      });
      yield();
      // A third goroutine that is only runnable gets its turn within about two slices.
      std::atomic<bool> ran{false};
      const Time before = now();
      wg.go([&] { ran = true; });
      while (!ran) yield();
      best = std::min<std::chrono::nanoseconds>(best, now() - before);
      stop = true;
      wg.wait();
    }
    EXPECT_LT(best, 50ms);
  });
}

TEST(Scheduler, PingPongStaysOnOneProc) {  // 71
  in_run({2, 10}, [] {
    // Whom a hand-over has readied is left to the P that readied it: the pair stays together on a
    // thread.
    constexpr int kRounds = scaled(10000, 2000);
    int best = kRounds;
    for (int attempt = 0; attempt < 5; attempt++) {
      Chan<int> a = make_chan<int>(), b = make_chan<int>();
      WaitGroup wg;
      wg.go([=] {
        for (int v : a) b.send(v);
      });
      int moves = 0;
      pid_t last = thread_now();
      for (int i = 0; i < kRounds; i++) {
        a.send(i);
        ASSERT_EQ(b.recv(), i);
        const pid_t here = thread_now();
        moves += here != last;
        last = here;
      }
      a.close();
      wg.wait();
      best = std::min(best, moves);
    }
    if (!kTsan && !kAsan) {
      EXPECT_LT(best, kRounds / 10);
    }
  });
}

}  // namespace
}  // namespace weft::test
