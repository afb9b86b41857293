// Goroutines that are locked to their thread, and the threads themselves: how they start, whose state they have, when they end.
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

bool thread_exists(pid_t tid) { return ::syscall(SYS_tgkill, ::getpid(), tid, 0) == 0; }

TEST(Threads, ALockedGoroutineStaysOnItsThreadAndHasItAlone) {  // 41, 44
  each_run([] {
    lock_os_thread();
    const pid_t mine = thread_now();
    Chan<int> c = make_chan<int>();
    std::atomic<bool> stop{false};
    std::atomic<int> trespassers{0};
    for (int i = 0; i < 4; i++)
      go([&] {
        while (!stop) {
          if (thread_now() == mine) trespassers++;
          yield();
        }
      });
    go([=] {
      for (int i = 0; i < 20; i++) c.send(i);
    });
    for (int i = 0; i < 20; i++) {
      EXPECT_EQ(c.recv(), i);
      EXPECT_EQ(thread_now(), mine);
      yield();
      EXPECT_EQ(thread_now(), mine);
    }
    sleep_for(1ms);
    EXPECT_EQ(thread_now(), mine);
    {
      SyscallRegion r;
      ::usleep(2000);
    }
    EXPECT_EQ(thread_now(), mine);
    blocking([] { ::usleep(100); });
    EXPECT_EQ(thread_now(), mine);
    stop = true;
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(trespassers.load(), 0);
    unlock_os_thread();
  });
}

TEST(Threads, GoroutineOneIsOnTheThreadThatCalledRun) {
  const pid_t caller = thread_now();
  each_run([=] {
    lock_os_thread();
    EXPECT_EQ(thread_now(), caller);
    unlock_os_thread();
  });
}

TEST(Threads, LocksNestAndOneUnlockTooManyIsIgnored) {  // 57
  each_run([] {
    unlock_os_thread();
    lock_os_thread();
    lock_os_thread();
    const pid_t mine = thread_now();
    unlock_os_thread();
    std::atomic<int> there{0};
    for (int i = 0; i < 50; i++)
      go([&] {
        if (thread_now() == mine) there++;
      });
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(there.load(), 0) << "one of two unlocks has freed the thread";
    EXPECT_EQ(thread_now(), mine);
    unlock_os_thread();
    unlock_os_thread();
    unlock_os_thread();
    lock_os_thread();
    unlock_os_thread();
    Chan<int> c = make_chan<int>();
    go([=] { c.send(1); });
    EXPECT_EQ(c.recv(), 1);
  });
}

TEST(Threads, AThreadEndsWithTheGoroutineThatIsLockedToIt) {  // 42, 58
  each_run([] {
    for (int i = 0; i < 20; i++) {
      std::atomic<pid_t> its{0};
      WaitGroup wg;
      wg.go([&, i] {
        lock_os_thread();
        its = thread_now();
        if (i % 3 == 1) yield();
        if (i % 3 == 2) sleep_for(100us);
        if (i % 2) goexit();
      });
      wg.wait();
      if (its == ::getpid()) continue;  // run()'s caller is only parked
      EXPECT_TRUE(eventually([&] { return !thread_exists(its); }));
    }
  });
}

TEST(Threads, GoroutineOneMayEndLockedAndRunReturns) {
  for (int i = 0; i < 20; i++)
    in_run({1 + i % 3, 1}, [] {
      lock_os_thread();
      sleep_for(100us);
    });
}

TEST(Threads, NewThreadsDoNotInheritTheStateOfALockedOne) {  // 59
  cpu_set_t all;
  ASSERT_EQ(::sched_getaffinity(0, sizeof all, &all), 0);
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "needs two CPUs to tell a difference";
  for (const int procs : {1, 4}) {
    in_run({procs, 3}, [&] {
      WaitGroup wg;
      wg.go([&] {
        lock_os_thread();
        cpu_set_t one;
        CPU_ZERO(&one);
        for (int cpu = 0;; cpu++)
          if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &one);
            break;
          }
        ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
        // Each blocks its thread, so that the next needs a new one, started while this goroutine runs.
        constexpr int kCalls = 12;
        std::atomic<int> inside{0}, wrong{0};
        WaitGroup calls;
        for (int i = 0; i < kCalls; i++) {
          calls.go([&] {
            blocking([&] {
              cpu_set_t now;
              if (::sched_getaffinity(0, sizeof now, &now) != 0 || !CPU_EQUAL(&now, &all)) wrong++;
              inside++;
              while (inside < kCalls) ::usleep(100);
            });
          });
          yield();
        }
        calls.wait();
        EXPECT_EQ(wrong.load(), 0);
        ASSERT_EQ(::sched_setaffinity(0, sizeof all, &all), 0);  // it may be run()'s caller
      });
      wg.wait();
    });
  }
}

TEST(Threads, NorThatOfAHostsThread) {
  cpu_set_t all;
  ASSERT_EQ(::sched_getaffinity(0, sizeof all, &all), 0);
  if (CPU_COUNT(&all) < 2) GTEST_SKIP() << "needs two CPUs to tell a difference";
  Runtime rt{Config{.procs = 4, .use_env = false}};
  ASSERT_FALSE(rt.start());
  constexpr int kCalls = 8;
  std::atomic<int> inside{0}, wrong{0}, done{0};
  std::thread host([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    for (int i = 0; i < kCalls; i++)
      rt.go([&] {
        blocking([&] {
          cpu_set_t now;
          if (::sched_getaffinity(0, sizeof now, &now) != 0 || !CPU_EQUAL(&now, &all)) wrong++;
          inside++;
          while (inside < kCalls) ::usleep(100);
        });
        done++;
      });
  });
  host.join();
  EXPECT_TRUE(eventually([&] { return done == kCalls; }));
  EXPECT_EQ(wrong.load(), 0);
  rt.stop(1s);
}

TEST(Threads, AHundredLockedGoroutinesStartOthersAtOnce) {  // 60
  each_run([] {
    WaitGroup wg;
    for (int i = 0; i < scaled(100, 30); i++)
      wg.go([] {
        lock_os_thread();
        Chan<pid_t> c = make_chan<pid_t>();
        go([=] { c.send(thread_now()); });
        EXPECT_NE(c.recv(), thread_now());
        unlock_os_thread();
      });
    wg.wait();
  });
}

TEST(Threads, IdleOnesEndAndAreStartedAgainWhenNeeded) {
  const auto before = rt::idle_m_patience;
  rt::idle_m_patience = 20'000'000;
  for (int procs : {1, 2}) {
    in_run({procs, 1}, [&] {
      const int alone = arch::count_process_threads();
      for (int round = 0; round < 3; round++) {
        constexpr int kCalls = 30;
        std::atomic<int> inside{0}, threads{0};
        WaitGroup wg;
        for (int i = 0; i < kCalls; i++)
          wg.go([&] {
            blocking([&] {
              if (++inside == kCalls) threads = arch::count_process_threads();
              while (threads == 0) ::usleep(100);
            });
          });
        wg.wait();
        EXPECT_GE(threads.load(), kCalls);
        EXPECT_TRUE(eventually([&] {
          sleep_for(5ms);
          return arch::count_process_threads() <= alone + 2 * procs + 2;  // run by, asleep, in the poller
        }));
      }
    });
  }
  rt::idle_m_patience = before;
}

TEST(Threads, ALockedGoroutineThatIsParkedAtTheEndIsUnwound) {
  std::atomic<int> unwound{0};
  const StopResult r = in_runtime({2, 1}, [&] {
    for (int i = 0; i < 4; i++)
      go_parked("chan receive", [&] {
        lock_os_thread();
        Defer counted{[&] { unwound++; }};
        make_chan<int>().recv();
      });
  });
  EXPECT_EQ(unwound.load(), 4);
  EXPECT_EQ(r.unwound.size(), 4u);
}

TEST(Threads, ALockedGoroutineLosesItsPLikeAnyOther) {
  in_run({1, 1}, [] {
    std::atomic<bool> stop{false}, spins{false};
    WaitGroup wg;
    wg.go([&] {
      lock_os_thread();
      const pid_t mine = thread_now();
      spins = true;
      while (!stop.load(std::memory_order_relaxed)) {
      }
      yield();
      EXPECT_EQ(thread_now(), mine);
    });
    eventually([&] { return spins.load(); });
    for (int i = 0; i < 5; i++) sleep_for(1ms);
    stop = true;
    wg.wait();
  });
}

TEST(Threads, OnAPlainThreadLockingDoesNothing) {
  lock_os_thread();
  unlock_os_thread();
}

}  // namespace
}  // namespace weft::test
