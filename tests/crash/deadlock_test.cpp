// All asleep: when it is reported, when something pending holds the report back, and what the
// report says.
#include <fcntl.h>
#include <unistd.h>

#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

constexpr const char* kAsleep = "fatal error: all goroutines are asleep - deadlock!";

TEST(Deadlock, PrintsGosMessageAndExitsWith2) {  // 80
  for (const char* procs : {"1", "2", "8"}) {
    const Child c = child(
        [] {
          run([] {
            Chan<int> c = make_chan<int>();
            (void)c.recv();
          });
        },
        {.env = {std::string("WEFT_PROCS=") + procs}});
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 2) << c.report();
    EXPECT_EQ(c.err.rfind(kAsleep, 0), 0u) << c.report();
    EXPECT_TRUE(c.says("goroutine 1 [chan receive]:")) << c.report();
    EXPECT_EQ(c.count("fatal error:"), 1) << c.report();
  }
}

TEST(Deadlock, SaysWhoWaitsOnWhat) {  // 80
  const Child c = child([] {
    run([] {
      Mutex mu;
      mu.lock();
      WaitGroup wg;
      Chan<int> jobs = make_chan<int>();
      wg.go([&] { mu.lock(); });
      go({.name = "reader"}, [=] { (void)jobs.recv(); });
      go([] { Chan<int>().send(1); });
      go([] { select(); });
      go([=] { select(recv(jobs), recv(make_chan<int>())); });
      wg.wait();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says(kAsleep)) << c.report();
  EXPECT_TRUE(c.says("goroutine 1 [sync.WaitGroup.Wait]:")) << c.report();
  EXPECT_TRUE(c.says("[sync.Mutex.Lock]:")) << c.report();
  EXPECT_TRUE(c.says("[chan receive]:")) << c.report();
  EXPECT_TRUE(c.says("[chan send (nil chan)]:")) << c.report();
  EXPECT_TRUE(c.says("[select (no cases)]:")) << c.report();
  EXPECT_TRUE(c.says("[select]:")) << c.report();
  EXPECT_TRUE(c.says("reader")) << c.report();
  EXPECT_TRUE(c.says("created by ")) << c.report();
  EXPECT_TRUE(c.says("in goroutine 1")) << c.report();
}

TEST(Deadlock, EveryKindOfWaitForEver) {  // 80
  const std::function<void()> waits[] = {
      [] { make_chan<int>().send(1); },
      [] { (void)make_chan<int>(3).recv(); },
      [] { (void)Chan<int>().recv(); },
      [] { select(); },
      [] { select(recv(Chan<int>()), send(Chan<int>(), 1)); },
      [] { select(recv(make_chan<int>()), recv(make_chan<int>())); },
      [] {
        Mutex mu;
        mu.lock();
        mu.lock();
      },
      [] {
        WaitGroup wg;
        wg.add(1);
        wg.wait();
      },
      [] {
        Timer t(1h);
        t.stop();
        (void)t.chan().recv();
      },
      [] { (void)await<int>([](Resume<int> r) { new Resume<int>(r); }); },
  };
  int n = 0;
  for (const auto& wait : waits) {
    const Child c = child([&] { run([&] { wait(); }); });
    if (c.ran) {
      EXPECT_EQ(c.status, 2) << "wait " << n << c.report();
      EXPECT_TRUE(c.says(kAsleep)) << "wait " << n << c.report();
    }
    n++;
  }
}

TEST(Deadlock, AlsoWhenOthersHaveEndedOrWait) {
  const Child c = child([] {
    run([] {
      Chan<int> c = make_chan<int>();
      WaitGroup wg;
      for (int i = 0; i < 100; i++) wg.go([] { yield(); });
      wg.wait();
      for (int i = 0; i < 5; i++) go([c] { (void)c.recv(); });
      (void)c.recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says(kAsleep)) << c.report();
  EXPECT_EQ(c.count("[chan receive]:"), 6) << c.report();
}

// Go: InitDeadlock. In a child that is asked for it, before its main().
[[maybe_unused]] const int before_main = std::getenv("WEFT_TEST_DEADLOCK_IN_INIT") ? run([] { (void)make_chan<int>().recv(); }) : 0;

TEST(Deadlock, WhileStaticObjectsAreInitialised) {  // 81
  const Child c = child([] { std::puts("went on"); }, {.env = {"WEFT_TEST_DEADLOCK_IN_INIT=1"}, .ends_early = true});
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind(kAsleep, 0), 0u) << c.report();
  EXPECT_TRUE(c.says("goroutine 1 [chan receive]:")) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

TEST(Deadlock, WithGoroutinesLockedToTheirThreads) {  // 82, 83, 109
  const Child of_main = child([] {
    run([] {
      lock_os_thread();
      (void)make_chan<int>().recv();
    });
  });
  EXPECT_EQ(of_main.status, 2) << of_main.report();
  EXPECT_EQ(of_main.err.rfind(kAsleep, 0), 0u) << of_main.report();
  EXPECT_TRUE(of_main.says("goroutine 1 [chan receive, locked to thread]:")) << of_main.report();
  const Child of_another = child([] {
    run([] {
      go_parked("chan receive", [] {
        lock_os_thread();
        (void)make_chan<int>().recv();
      });
      select();
    });
  });
  EXPECT_EQ(of_another.status, 2) << of_another.report();
  EXPECT_EQ(of_another.err.rfind(kAsleep, 0), 0u) << of_another.report();
  EXPECT_TRUE(of_another.says("goroutine 1 [select (no cases)]:")) << of_another.report();
  EXPECT_TRUE(of_another.says(" [chan receive, locked to thread]:")) << of_another.report();
}

TEST(Deadlock, IsNotRecoverable) {  // 106
  const Child c = child([] {
    run([] {
      Defer d{[] { std::puts("deferred"); }};
      try {
        (void)make_chan<int>().recv();
      } catch (...) {
        std::puts("caught");
        throw;
      }
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

TEST(Deadlock, AfterMainCalledGoexitAndOthersFinished) {  // 84
  const Child c = child([] {
    run([] {
      go([] {
        for (int i = 0; i < 10; i++) yield();
        std::puts("the other finished");
      });
      goexit();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.out, "the other finished\n") << c.report();
  EXPECT_TRUE(c.says("fatal error: no goroutines (main called runtime.Goexit) - deadlock!"))
      << c.report();
}

TEST(Deadlock, AfterMainCalledGoexitAndOthersWait) {  // 84
  const Child c = child([] {
    run([] {
      go([] { (void)make_chan<int>().recv(); });
      goexit();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("deadlock!")) << c.report();
  EXPECT_TRUE(c.says("[chan receive]:")) << c.report();
}

TEST(Deadlock, AfterMainCalledGoexitTimersStillFire) {  // 85
  const Child c = child([] {
    run([] {
      after_func(20ms, [] { std::puts("fired"); });
      goexit();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.out, "fired\n") << c.report();
  EXPECT_TRUE(c.says("fatal error: no goroutines (main called runtime.Goexit) - deadlock!"))
      << c.report();
}

TEST(Deadlock, MainGoexitThenAnotherEndsTheProcess) {  // 84
  const Child c = child([] {
    run([] {
      go([] {
        sleep_for(1ms);
        std::_Exit(5);
      });
      goexit();
    });
  });
  EXPECT_EQ(c.status, 5) << c.report();
}

TEST(Deadlock, APendingTimerHoldsTheReportBackUntilItFired) {  // 86
  const Child c = child([] {
    run([] {
      const Time before = now();
      after_func(60ms, [=] { std::printf("%d\n", now() - before >= 60ms); });
      (void)make_chan<int>().recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.out, "1\n") << "reported before the timer fired" << c.report();
  EXPECT_TRUE(c.says(kAsleep)) << c.report();
  EXPECT_GE(c.took, 60ms);
}

TEST(Deadlock, ASleeperAndATimedWaitHoldItBack) {  // 86
  const Child c = child([] {
    return run([] {
      Chan<int> c = make_chan<int>();
      go([=] {
        sleep_for(30ms);
        c.send(1);
      });
      (void)c.recv();
      (void)c.recv_for(10ms);
      select(recv(c), timeout(10ms));
      Mutex mu;
      mu.lock();
      (void)mu.try_lock_for(10ms);
      mu.unlock();
      return 4;
    });
  });
  EXPECT_EQ(c.status, 4) << c.report();
  EXPECT_EQ(c.err, "") << c.report();
}

TEST(Deadlock, ADescriptorWaitHoldsItBackUntilItEnds) {  // 87
  const Child c = child([] {
    int fds[2];
    if (::pipe2(fds, O_NONBLOCK) != 0) std::_Exit(9);
    run([&] {
      go([&] {
        // Gives the report every chance to come too early: the reader waits for its descriptor all
        // this while.
        for (int i = 0; i < 10; i++) sleep_for(5ms);
        std::puts("written");
        if (::write(fds[1], "x", 1) != 1) std::_Exit(9);
      });
      if (wait_fd(fds[0], Io::Read)) std::_Exit(8);
      std::puts("readable");
      (void)make_chan<int>().recv();  // nobody waits for a descriptor any more
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.out, "written\nreadable\n") << c.report();
  EXPECT_TRUE(c.says(kAsleep)) << c.report();
}

TEST(Deadlock, OnlyADescriptorWaitIsLeft) {  // 87
  // The other end is written by a thread that sleeps: nothing but the descriptor keeps the process
  // alive.
  const Child c = child([] {
    int fds[2];
    if (::pipe2(fds, O_NONBLOCK) != 0) std::_Exit(9);
    std::thread writer([&] {
      std::this_thread::sleep_for(100ms);
      if (::write(fds[1], "x", 1) != 1) std::_Exit(9);
    });
    const int r = run([&] {
      (void)wait_fd(fds[0], Io::Read);
      return 6;
    });
    writer.join();
    return r;
  });
  EXPECT_EQ(c.status, 6) << c.report();
  EXPECT_EQ(c.err, "") << c.report();
}

TEST(Deadlock, ABlockingCallHoldsItBack) {  // 87
  const Child c = child([] {
    return run([] {
      Chan<int> c = make_chan<int>();
      go([=] {
        blocking([] { std::this_thread::sleep_for(50ms); });
        c.send(1);
      });
      (void)c.recv();
      return 3;
    });
  });
  EXPECT_EQ(c.status, 3) << c.report();
  EXPECT_EQ(c.err, "") << c.report();
}

TEST(Deadlock, AThreadOfTheHostHoldsTheFatalReportBack) {
  const Child c = child([] {
    Chan<int> c;
    std::atomic<bool> go_on{false};
    std::thread host([&] {
      while (!go_on) std::this_thread::yield();
      std::this_thread::sleep_for(50ms);
      c.send(1);
    });
    const int r = run([&] {
      c = make_chan<int>();
      go_on = true;
      return c.recv_or(9) + 10;
    });
    host.join();
    return r;
  });
  EXPECT_EQ(c.status, 11) << c.report();
  EXPECT_FALSE(c.says("fatal error")) << c.report();
}

TEST(Deadlock, InASecondRunToo) {
  const Child c = child([] {
    for (int i = 0; i < 3; i++) run([] { sleep_for(1ms); });
    run([] { (void)make_chan<int>().recv(); });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says(kAsleep)) << c.report();
}

TEST(Deadlock, UnderRuntimeIsAReportAndNobodyDies) {
  const Child c = child([] {
    Config config;
    std::promise<std::string> told;
    std::atomic<bool> once{false};
    config.on_stuck = [&](const StuckReport& r) {
      if (!once.exchange(true)) told.set_value(r.text);
    };
    Runtime rt{config};
    if (rt.start()) std::_Exit(9);
    Chan<int> c = make_chan<int>();
    rt.go([c] { (void)c.recv(); });
    std::puts(told.get_future().get().c_str());
    c.close();
    const StopResult r = rt.stop(5s);
    return r.unwound.empty() && r.abandoned.empty() ? 0 : 1;
  });
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_NE(c.out.find("all goroutines are asleep"), std::string::npos) << c.report();
  EXPECT_NE(c.out.find("[chan receive]"), std::string::npos) << c.report();
}

}  // namespace
}  // namespace weft::test
