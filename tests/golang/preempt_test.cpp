// Goroutines that never come to a safepoint: they lose their P, keep their thread, and everybody else runs.
//
// Bodies are loops that a compiler may not remove and that call nothing of the runtime's, built without inserted polls.
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <regex>
#include <stdexcept>
#include <thread>

#include "tests/support/internals.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

/// How the runtime gets at a P: without a signal, with one.
const char* const kWays[] = {"", "preemptsignal"};

template <class Body>
void in_run_of(Config c, Body body) {
  c.use_env = false;
  EXPECT_EQ(run(
                [&] {
                  body();
                  EXPECT_TRUE(settle(1, kPatience)) << dump_goroutines();
                },
                c),
            0);
}

template <class Body>
void each_way(int procs, Body body) {
  for (const char* way : kWays) {
    Config c;
    c.procs = procs;
    c.seed = 7;
    c.debug = way;
    SCOPED_TRACE(std::string("procs ") + std::to_string(procs) + " way " + way);
    in_run_of(c, body);
  }
}

using Clock = std::chrono::steady_clock;

void spin_for(Clock::duration d) {
  const auto end = Clock::now() + d;
  while (Clock::now() < end) {
  }
}

/// Code that goroutines of users run for long: one round of it takes well below a millisecond.
struct Code {
  const char* name;
  void (*round)();
};

std::string long_text = std::string(1 << 16, 'x');
std::atomic<std::size_t> sink;

const Code kCodes[] = {
    {"a loop", [] {
       unsigned x = 1;
       for (int i = 0; i < 10'000; i++) x = x * 1664525u + 1013904223u;
       sink = x;
     }},
    {"strlen", [] { sink = std::strlen(long_text.c_str()); }},
    {"malloc and free", [] {
       void* p[32];
       for (std::size_t i = 0; i < 32; i++) p[i] = std::malloc(i * 37 + 1);
       for (void* q : p) std::free(q);
     }},
    {"regex", [] {
       static const std::regex re("(a|b)*c");
       sink = std::regex_match(std::string(40, 'a'), re);
     }},
    {"unwinding", [] {
       try {
         throw std::runtime_error("x");
       } catch (const std::exception& e) {
         sink = reinterpret_cast<std::size_t>(e.what());
       }
     }},
    {"qsort", [] {
       int v[256];
       for (int i = 0; i < 256; i++) v[i] = (i * 7919) % 256;
       std::qsort(v, 256, sizeof(int), [](const void* a, const void* b) { return *static_cast<const int*>(a) - *static_cast<const int*>(b); });
     }},
};

TEST(Preempt, CodeWithoutRuntimeCallsDoesNotKeepOthersFromRunning) {  // 49
  for (const Code& code : kCodes) {
    SCOPED_TRACE(code.name);
    each_way(1, [&] {
      std::atomic<bool> stop{false};
      std::atomic<bool> spins{false};
      for (int i = 0; i < 3; i++)
        go([&] {
          spins = true;
          while (!stop.load(std::memory_order_relaxed)) code.round();
        });
      eventually([&] { return spins.load(); });
      // Each of these needs the P that one of them has.
      for (int i = 0; i < 5; i++) sleep_for(1ms);
      Chan<int> c = make_chan<int>();
      go([=] { c.send(7); });
      EXPECT_EQ(c.recv(), 7);
      stop = true;
      EXPECT_TRUE(settle(1, kPatience));
    });
  }
}

TEST(Preempt, BetweenTwoRuntimeCallsAGoroutineKeepsItsThreadToItself) {
  static thread_local int mine = 0;
  for (int procs : {1, 2}) {
    each_way(procs, [&] {
      WaitGroup wg;
      std::atomic<int> wrong{0};
      std::atomic<bool> stop{false};
      // Something is due all the time, so that slices are short.
      go([&] {
        while (!stop) sleep_for(500us);
      });
      for (int g = 1; g <= 6; g++)
        wg.go([&, g] {
          for (int round = 0; round < 4; round++) {
            mine = g;
            const pid_t thread = thread_now();
            const auto end = Clock::now() + 12ms;
            while (Clock::now() < end)
              if (mine != g) wrong++;
            if (thread_now() != thread) wrong++;
            yield();
          }
        });
      wg.wait();
      stop = true;
      EXPECT_TRUE(settle(1, kPatience));
      EXPECT_EQ(wrong.load(), 0);
    });
  }
}

TEST(Preempt, ABlockingCallThatNobodyDeclaredBlocksOnlyItsGoroutine) {
  Config c;
  c.procs = 1;
  in_run_of(c, [] {
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    std::atomic<bool> reading{false};
    WaitGroup wg;
    wg.go([&] {
      char byte = 0;
      reading = true;
      EXPECT_EQ(::read(fds[0], &byte, 1), 1) << std::strerror(errno);
    });
    std::atomic<int> interrupted{0};
    wg.go([&] {
      for (int i = 0; i < 5; i++) {
        const timespec t{0, 20'000'000};
        if (::nanosleep(&t, nullptr) != 0) interrupted++;
      }
    });
    eventually([&] { return reading.load(); });
    for (int i = 0; i < 10; i++) sleep_for(1ms);
    EXPECT_EQ(::write(fds[1], "x", 1), 1);
    wg.wait();
    EXPECT_EQ(interrupted.load(), 0) << "calls of a goroutine that lost its P";
    ::close(fds[0]);
    ::close(fds[1]);
  });
}

TEST(Preempt, UnderNoPreemptNobodyElseRuns) {
  each_way(1, [] {
    std::atomic<int> others{0};
    std::atomic<bool> stop{false};
    WaitGroup wg;
    wg.go([&] {
      while (!stop) {
        others++;
        sleep_for(100us);
      }
    });
    sleep_for(1ms);
    {
      NoPreempt outer;
      const int before = others;
      {
        NoPreempt inner;
        spin_for(30ms);
      }
      safepoint();
      spin_for(10ms);
      safepoint();
      EXPECT_EQ(others.load(), before);
    }
    const int before = others;
    spin_for(30ms);
    yield();
    EXPECT_TRUE(eventually([&] { return others != before; }));
    stop = true;
    wg.wait();
  });
}

TEST(Preempt, TheEndOfNoPreemptIsASafepoint) {
  each_way(1, [] {
    std::atomic<bool> ran{false};
    go([&] { ran = true; });
    {
      NoPreempt guard;
      while (!detail::preempt_requested()) {
      }
      EXPECT_FALSE(ran.load());
    }
    EXPECT_TRUE(ran.load());
  });
}

TEST(Preempt, NoPreemptOnAPlainThreadDoesNothing) {
  NoPreempt a;
  NoPreempt b;
}

TEST(Preempt, AGoroutineInNoPreemptMayStillBlock) {
  each_way(1, [] {
    Chan<int> c = make_chan<int>();
    go([=] { c.send(3); });
    NoPreempt guard;
    EXPECT_EQ(c.recv(), 3);
    sleep_for(1ms);
  });
}

TEST(Preempt, SwitchedOffOnlySafepointsGiveWay) {
  Config c;
  c.procs = 1;
  c.debug = "preemptoff";
  in_run_of(c, [] {
    std::atomic<bool> begun{false}, computed{false};
    go([&] {
      begun = true;
      spin_for(60ms);
      computed = true;
    });
    eventually([&] { return begun.load(); });
    EXPECT_TRUE(computed.load()) << "the goroutine lost its P";
    // At safepoints it still does.
    std::atomic<bool> stop{false};
    go([&] {
      while (!stop) safepoint();
    });
    sleep_for(1ms);
    stop = true;
    EXPECT_TRUE(settle(1, kPatience));
  });
}

TEST(Preempt, WhereTheKernelRefusesBarriersASignalDoesIt) {
  rt::fault_install({{rt::Call::Membarrier, 1, rt::FaultRule::kForEver, ENOSYS}});
  Config c;
  c.procs = 1;
  in_run_of(c, [] {
    std::atomic<bool> stop{false};
    go([&] {
      while (!stop.load(std::memory_order_relaxed)) kCodes[0].round();
    });
    for (int i = 0; i < 5; i++) sleep_for(1ms);
    stop = true;
    EXPECT_TRUE(settle(1, kPatience));
  });
  EXPECT_GE(rt::fault_hits(rt::Call::Membarrier), 1u);
  rt::fault_restore();
}

std::atomic<int> urgent{0};

TEST(Preempt, AHandlerOfTheHostForSigurgIsCalledToo) {
  urgent = 0;
  struct sigaction mine = {}, before = {};
  mine.sa_handler = [](int) { urgent++; };
  ASSERT_EQ(::sigaction(SIGURG, &mine, &before), 0);
  Config c;
  c.procs = 1;
  c.debug = "preemptsignal";
  in_run_of(c, [] {
    EXPECT_EQ(::raise(SIGURG), 0);
    EXPECT_EQ(urgent.load(), 1) << "one that is not the runtime's";
    std::atomic<bool> stop{false}, spins{false};
    go([&] {
      spins = true;
      while (!stop.load(std::memory_order_relaxed)) kCodes[0].round();
    });
    // There is one P: this goroutine runs again once the other one has lost it.
    while (!spins) sleep_for(1ms);
    stop = true;
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_TRUE(eventually([&] { return urgent >= 2; })) << "the runtime's own is passed on";
  });
  struct sigaction now = {};
  ASSERT_EQ(::sigaction(SIGURG, &before, &now), 0);
  EXPECT_EQ(now.sa_handler, mine.sa_handler) << "the runtime has left its handler behind";
}

TEST(Preempt, AGoroutineThatPanicsOrEndsWithoutItsPIsLikeAnyOther) {
  each_way(1, [] {
    WaitGroup wg;
    for (int i = 0; i < 4; i++)
      wg.go([i] {
        // Loses its P here: the sleeper below is due all the time.
        const std::string what = panic_of([] {
          spin_for(20ms);
          panic("late");
        });
        EXPECT_EQ(what, "late");
        spin_for(20ms);
        if (i % 2) goexit();
      });
    std::atomic<bool> stop{false};
    go([&] {
      while (!stop) sleep_for(1ms);
    });
    wg.wait();
    stop = true;
    EXPECT_TRUE(settle(1, kPatience));
  });
}

TEST(Preempt, WhileOnlyNewcomersWaitNoMoreThanDetachedMaxRunWithoutAP) {
  Config c;
  c.procs = 1;
  c.detached_max = 3;
  in_run_of(c, [] {
    std::atomic<int> began{0};
    std::atomic<bool> stop{false};
    int at_end = 0;
    WaitGroup wg;
    for (int i = 0; i < 16; i++)
      wg.go([&] {
        began++;
        while (!stop.load(std::memory_order_relaxed)) kCodes[0].round();
      });
    std::thread outside([&] {
      eventually([&] { return began >= 4; });
      std::this_thread::sleep_for(200ms);  // many slices: nobody more
      at_end = began;
      stop = true;
    });
    wg.wait();
    outside.join();
    EXPECT_EQ(at_end, 1 + 3);
  });
}

/// Goroutine 1 beside eight that never end, of which three may run without a P: what `once` does to be in a queue, twenty times.
template <class Once>
void beside_more_hogs_than_may_be_detached(Once once) {
  for (int procs : {1, 2}) {
    Config c;
    c.procs = procs;
    c.detached_max = 3;
    in_run_of(c, [&] {
      std::atomic<bool> stop{false};
      for (int i = 0; i < 8; i++)
        go([&] {
          while (!stop.load(std::memory_order_relaxed)) kCodes[0].round();
        });
      for (int i = 0; i < 20; i++) once();
      stop = true;
      EXPECT_TRUE(settle(1, kPatience));
    });
  }
}

// Newcomers may wait for ever behind detached_max that compute; who has run before may not.
TEST(Preempt, WhoGivesWayIsNotHeldUpByDetachedMax) {
  beside_more_hogs_than_may_be_detached([] { yield(); });
}

TEST(Preempt, WhoHasOverrunItselfIsNotHeldUpByDetachedMax) {
  beside_more_hogs_than_may_be_detached([] {
    spin_for(15ms);
    safepoint();
  });
}

// Who sleeps in the poller gets no CPU, as behind threads that compute: it looks neither at the clock nor at descriptors. `wait_once` is
// what a goroutine does over and over; `let_go_on`, by another thread, ends one.
template <class Wait, class LetGoOn>
void while_the_sleeper_gets_no_cpu(Wait wait_once, LetGoOn let_go_on) {
  static std::atomic<bool> hold, held;
  hold = held = false;
  arch::kernel.epoll_pwait2 = [](int epfd, epoll_event* evs, int n, const timespec* timeout) {
    const bool sleeps = !timeout || timeout->tv_sec != 0 || timeout->tv_nsec != 0;
    if (sleeps && hold) held = true;
    while (sleeps && hold) ::usleep(200);
    return arch::kRealKernel.epoll_pwait2(epfd, evs, n, timeout);
  };
  in_run_of({.procs = 1}, [&] {
    std::atomic<bool> over{false};
    std::atomic<int> rounds{0};
    WaitGroup hog;
    hog.go([&] {
      while (!over) {
      }
    });
    while (rt::peek(rt::sched.detached) == 0) sleep_for(1ms);
    hold = true;
    std::thread other([&] {
      const auto patience = std::chrono::steady_clock::now() + kPatience;
      const auto until = [&](auto holds) {
        while (!holds() && std::chrono::steady_clock::now() < patience) ::usleep(200);
        return holds();
      };
      EXPECT_TRUE(until([] { return held.load(); }));
      int ended = 0;
      for (bool moves = true; moves && ended < 20; ended += moves) {
        const int from = rounds;
        let_go_on();
        moves = until([&] { return rounds > from; });
      }
      EXPECT_EQ(ended, 20);
      hold = false;
      over = true;
      let_go_on();
    });
    while (!over) {
      wait_once();
      rounds++;
    }
    other.join();
    hog.wait();
  });
  arch::kernel.epoll_pwait2 = arch::kRealKernel.epoll_pwait2;
}

TEST(Preempt, ASleepersThreadThatGetsNoCpuKeepsNoTimer) {
  while_the_sleeper_gets_no_cpu([] { sleep_for(1ms); }, [] {});
}

TEST(Preempt, ASleepersThreadThatGetsNoCpuKeepsNoDescriptor) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  while_the_sleeper_gets_no_cpu(
      [&] {
        char c;
        EXPECT_FALSE(wait_fd(ends[0], Io::Read));
        EXPECT_EQ(::read(ends[0], &c, 1), 1);
      },
      [&] { EXPECT_EQ(::write(ends[1], "x", 1), 1); });
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(Preempt, AThousandHogsLeaveADueTimerItsTurn) {
  if (kTsan) return;  // a thousand threads that compute
  Config c;
  c.procs = 2;
  c.threads_max = 200;
  in_run_of(c, [] {
    std::atomic<bool> stop{false};
    std::atomic<int> began{0};
    WaitGroup wg;
    for (int i = 0; i < 1000; i++)
      wg.go([&] {
        began++;
        while (!stop.load(std::memory_order_relaxed)) kCodes[0].round();
      });
    int threads = 0;
    for (int i = 0; i < 10; i++) {
      sleep_for(1ms);
      threads = std::max(threads, arch::count_process_threads());
    }
    EXPECT_LE(threads, 200 + 2) << "Ms, sysmon, this one";
    stop = true;
    wg.wait();
    EXPECT_EQ(began.load(), 1000);
  });
}

TEST(Preempt, TheWorldStopsBesideGoroutinesThatNeverComeToASafepoint) {
  for (int procs : {1, 2, 4}) {
    each_way(procs, [&] {
      std::atomic<bool> stop{false};
      std::atomic<int> spinning{0};
      for (int i = 0; i < 6; i++)
        go([&, i] {
          spinning++;
          while (!stop.load(std::memory_order_relaxed)) kCodes[i % 3].round();
        });
      eventually([&] { return spinning == 6; });
      for (int i = 0; i < 20; i++) EXPECT_GE(set_procs(1 + i % 4), 1);
      EXPECT_NE(dump_goroutines().find("goroutine "), std::string::npos);
      stop = true;
      EXPECT_TRUE(settle(1, kPatience));
    });
  }
}

TEST(Preempt, StopUnwindsTheParkedBesideAHog) {
  std::atomic<bool> stop{false};
  std::atomic<int> unwound{0};
  Config c;
  c.procs = 1;
  c.use_env = false;
  Runtime rt{c};
  ASSERT_FALSE(rt.start());
  std::atomic<bool> spins{false};
  for (int i = 0; i < 3; i++)
    go_parked("chan receive", [&] {
      Defer counted{[&] { unwound++; }};
      make_chan<int>().recv();
    });
  rt.go([&] {
    spins = true;
    while (!stop.load(std::memory_order_relaxed)) kCodes[0].round();
  });
  ASSERT_TRUE(eventually([&] { return spins.load(); }));
  std::thread later([&] {
    ASSERT_TRUE(eventually([&] { return unwound == 3; }));
    stop = true;
  });
  const StopResult r = rt.stop(0s);
  later.join();
  EXPECT_EQ(r.unwound.size(), 3u);
  EXPECT_TRUE(r.abandoned.empty());
}

__attribute__((noinline)) void computes_for_long(std::atomic<bool>& stop) {
  while (!stop.load(std::memory_order_relaxed)) kCodes[0].round();
}

TEST(Preempt, WhoOverrunsIsReportedOnceWithNamePlaceAndStack) {
  static std::atomic<int> reports;
  static OverrunReport last;
  reports = 0;
  Config c;
  c.procs = 1;
  c.on_overrun = [](const OverrunReport& r) {
    last = r;
    reports++;
  };
  std::uint64_t id = 0;
  in_run_of(c, [&] {
    std::atomic<bool> stop{false}, stop_again{false}, again{false};
    go({.name = "cruncher"}, [&] {
      id = goid();
      computes_for_long(stop);
      again = true;
      yield();
      computes_for_long(stop_again);  // it has been told already
    });
    for (int i = 0; i < 5; i++) sleep_for(1ms);
    stop = true;
    eventually([&] { return again.load(); });
    for (int i = 0; i < 30; i++) sleep_for(1ms);
    stop_again = true;
  });
  EXPECT_EQ(reports.load(), 1);
  EXPECT_EQ(last.id, id);
  EXPECT_EQ(last.name, "cruncher");
  EXPECT_GE(last.ran.count(), 1);
  EXPECT_NE(last.text.find("goroutine " + std::to_string(id) + " \"cruncher\" has run for "), std::string::npos) << last.text;
  EXPECT_NE(last.text.find("preempt_test.cpp:"), std::string::npos) << last.text;
  EXPECT_NE(last.text.find("created by "), std::string::npos) << last.text;
}

// Who follows one that sleeps has run since that looked at the clock. A look at the clock by one that goes on says nothing of the kind:
// who follows it much later would be taken for having run all the while, and be asked, or reported, before its time.
TEST(Preempt, OnlyALookAtTheClockThatAParkFollowsBeginsATurn) {
  in_run_of({.procs = 1}, [] {
    const rt::P* pp = rt::current_m()->p;
    const auto only_looks = [pp](const char* what, auto look) {
      look();
      EXPECT_NE(pp->clock_switches, pp->switches) << what;
    };
    only_looks("nothing", [] {});
    only_looks("weft::Clock::now()", [] { (void)weft::Clock::now(); });
    only_looks("a sleep of nothing", [] { sleep_for(0ns); });
    only_looks("a sleep until now", [] { sleep_until(weft::Clock::now()); });
    Chan<int> full = make_chan<int>(1);
    full.send(1);
    only_looks("a timed receive that has its value", [&] { EXPECT_EQ(full.recv_for(1s).status, RecvStatus::Ok); });
    // On a loaded machine the millisecond is over before anybody follows: once more.
    bool follows = false;
    for (int i = 0; i < 100 && !follows; i++) {
      go([&] { follows = pp->clock_switches + 1 == pp->switches; });
      sleep_for(1ms);
      EXPECT_TRUE(settle(1, kPatience));
    }
    EXPECT_TRUE(follows);
  });
}

TEST(Preempt, NobodyIsReportedForRunningAlone) {
  static std::atomic<int> reports;
  reports = 0;
  Config c;
  c.procs = 2;
  c.on_overrun = [](const OverrunReport&) { reports++; };
  in_run_of(c, [] { spin_for(40ms); });
  EXPECT_EQ(reports.load(), 0);
}

}  // namespace
}  // namespace weft::test
