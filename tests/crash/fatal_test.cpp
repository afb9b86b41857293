// Errors that nobody can recover from: message, exit status 2, and no handler that gets to see
// them.
#include <unistd.h>

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

// Runs `f` as goroutine 1 inside everything that could catch it.
Child in_handlers(const std::function<void()>& f, const ChildOptions& options = {}) {
  return child(
      [&] {
        run([&] {
          Defer d{[] { std::puts("deferred"); }};
          try {
            f();
          } catch (const Panic&) {
            std::puts("caught as a panic");
          } catch (const std::exception&) {
            std::puts("caught as an exception");
          }
          std::puts("went on");
        });
      },
      options);
}

void expect_fatal(const Child& c, const std::string& message) {
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("fatal error: " + message, 0), 0u) << "expected: " << message << c.report();
  EXPECT_EQ(c.out, "") << "somebody recovered" << c.report();
  EXPECT_EQ(c.count("fatal error: "), 1) << c.report();
}

TEST(Fatal, UnlockOfUnlockedMutex) {  // 106
  const Child c = in_handlers([] {
    Mutex mu;
    mu.unlock();
  });
  expect_fatal(c, "sync: unlock of unlocked mutex");
  EXPECT_TRUE(c.says("goroutine 1 [running]:")) << c.report();
}

TEST(Fatal, SecondUnlockOfAMutexThatWasHandedOver) {  // 106
  const Child c = in_handlers([] {
    Mutex mu;
    mu.lock();
    go_parked("sync.Mutex.Lock", [&] {
      mu.lock();
      mu.unlock();
    });
    mu.unlock();
    settle(1, 10s);
    mu.unlock();
  });
  expect_fatal(c, "sync: unlock of unlocked mutex");
}

TEST(Fatal, GoOfANilFunction) {  // 98
  expect_fatal(in_handlers([] { go(std::function<void()>()); }), "go of nil func value");
  expect_fatal(in_handlers([] {
                 void (*f)() = nullptr;
                 go(f);
               }),
               "go of nil func value");
  expect_fatal(in_handlers([] {
                 WaitGroup wg;
                 wg.go(std::function<void()>());
               }),
               "go of nil func value");
  expect_fatal(in_handlers([] { (void)try_go(std::function<void()>()); }), "go of nil func value");
  expect_fatal(in_handlers([] { go({.name = "empty"}, std::function<void()>()); }),
               "go of nil func value");
}

TEST(Fatal, CalledByTheProgram) {
  const Child c = in_handlers([] { fatal("the program gives up"); });
  expect_fatal(c, "the program gives up");
}

TEST(Fatal, FromAnotherGoroutineNamesIt) {
  const Child c = child([] {
    run([] {
      go({.name = "culprit"}, [] {
        Mutex mu;
        mu.unlock();
      });
      (void)make_chan<int>().recv();
    });
  });
  expect_fatal(c, "sync: unlock of unlocked mutex");
  EXPECT_NE(c.goroutine("[running").find("created by "), std::string::npos) << c.report();
  EXPECT_TRUE(c.says("culprit")) << c.report();
}

TEST(Fatal, DestroyingAMutexInUseNamesWhoWaits) {
  const Child c = in_handlers([] {
    auto mu = std::make_unique<Mutex>();
    mu->lock();
    go_parked("sync.Mutex.Lock", [p = mu.get()] { p->lock(); });
    mu.reset();
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("fatal error: ")) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

TEST(Fatal, DestroyingAWaitGroupInUse) {
  const Child c = in_handlers([] {
    auto wg = std::make_unique<WaitGroup>();
    wg->add(1);
    go_parked("sync.WaitGroup.Wait", [p = wg.get()] { p->wait(); });
    wg.reset();
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("fatal error: ")) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

TEST(Fatal, OfManyAtOnceOneIsReported) {
  for (int round = 0; round < 5; round++) {
    const Child c = child([] {
      run(
          [] {
            static std::atomic<int> ready{0};
            for (int i = 0; i < 8; i++)
              go([] {
                ready++;
                while (ready < 8) safepoint();
                fatal("everybody gives up");
              });
            (void)make_chan<int>().recv();
          },
          Machine{8, 1}.config());
    });
    if (!c.ran) continue;
    expect_fatal(c, "everybody gives up\n\ngoroutine ");
    EXPECT_EQ(c.count(" [running]:\n"), 1) << c.report();
  }
}

TEST(Fatal, OfPlainThreadsAtOnceOneIsReported) {
  const Child c = child([] {
    Runtime rt{Machine{1, 1}.config()};
    if (rt.start()) std::_Exit(9);
    static std::atomic<int> ready{0};
    std::vector<std::thread> all;
    for (int i = 0; i < 8; i++)
      all.emplace_back([] {
        ready++;
        while (ready < 8) std::this_thread::yield();
        fatal("every thread gives up");
      });
    for (std::thread& t : all) t.join();
  });
  expect_fatal(c, "every thread gives up\n");
}

TEST(Fatal, GoBeforeAnyRuntimeRuns) {
  const Child c = child([] {
    go([] { std::puts("ran"); });
    std::puts("went on");
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("fatal error: ", 0), 0u) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

TEST(Fatal, GoAfterTheRuntimeHasStopped) {
  const Child after_run = child([] {
    run([] {});
    go([] { std::puts("ran"); });
    std::puts("went on");
  });
  const Child after_stop = child([] {
    Runtime rt;
    if (rt.start()) std::_Exit(9);
    rt.stop(1s);
    rt.go([] { std::puts("ran"); });
    std::puts("went on");
  });
  for (const Child* c : {&after_run, &after_stop}) {
    EXPECT_EQ(c->status, 2) << c->report();
    EXPECT_EQ(c->err.rfind("fatal error: ", 0), 0u) << c->report();
    EXPECT_EQ(c->out, "") << c->report();
  }
}

TEST(Fatal, WaitingOnAPlainThreadBeforeAnyRuntimeRunsNeverHangsSilently) {
  // Channels work without a runtime as long as nothing has to be waited for by a goroutine; a timer
  // needs one.
  const Child c = child([] {
    Timer t(1ms);
    (void)t.chan().recv();
    std::puts("fired");
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("fatal error: ", 0), 0u) << c.report();
}

TEST(Fatal, RunInsideAGoroutine) {
  const Child c = in_handlers([] { run([] {}); });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("fatal error: ", 0), 0u) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

TEST(Fatal, RunWhileAnotherRuntimeRuns) {
  const Child c = child([] {
    Runtime rt;
    if (rt.start()) std::_Exit(9);
    run([] {});
    std::puts("went on");
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("fatal error: ", 0), 0u) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

// This suite is not linked with weft-segmented.
TEST(Fatal, SegmentedStacksWhereThereAreNone) {
  const Child c = child([] { run([] { go({.stack = Stack::Segmented}, [] { std::puts("ran"); }); }); });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
  EXPECT_TRUE(c.says(arch::kSegmented ? "fatal error: weft: Stack::Segmented: the program is not linked with weft-segmented"
                                      : "fatal error: weft: Stack::Segmented: this weft was built without segmented stacks "
                                        "(Meson option -Dsegmented=enabled, x86-64 with lld or gold)"))
      << c.report();
  EXPECT_EQ(capabilities().segmented.rfind("off: ", 0), 0u);
}

TEST(Fatal, ThreadsBeyondTheLimit) {  // 89
  const Child c = child(
      [] {
        run([] {
          int fds[2];
          if (::pipe(fds) != 0) std::_Exit(9);
          for (int i = 0; i < 100; i++)
            go([&] {
              blocking([&] {
                char byte;
                return ::read(fds[0], &byte, 1);
              });
            });
          for (;;) yield();
        });
      },
      {.env = {"WEFT_THREADS_MAX=10", "WEFT_PROCS=2"}});
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("program exceeds 10-thread limit")) << c.report();
  EXPECT_TRUE(c.says("fatal error: thread exhaustion")) << c.report();
}

}  // namespace
}  // namespace weft::test
