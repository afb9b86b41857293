// Misuse of the sync types that nobody can recover from, and what their waiters look like in a
// report.
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

void expect_fatal(const std::function<void()>& f, const std::string& message) {
  const Child c = child([&] {
    run([&] {
      try {
        f();
      } catch (...) {
        std::puts("caught");
      }
      std::puts("went on");
    });
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("fatal error: " + message, 0), 0u) << "expected: " << message << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

TEST(SyncMisuse, UnlockOfUnlockedRwMutex) {  // 106, 117
  expect_fatal([] { RwMutex().unlock(); }, "sync: Unlock of unlocked RWMutex");
  expect_fatal(
      [] {
        RwMutex mu;
        mu.lock_shared();
        mu.unlock();
      },
      "sync: Unlock of unlocked RWMutex");
  expect_fatal(
      [] {
        RwMutex mu;
        mu.lock();
        mu.unlock();
        mu.unlock();
      },
      "sync: Unlock of unlocked RWMutex");
}

TEST(SyncMisuse, RUnlockOfUnlockedRwMutex) {  // 106, 117
  expect_fatal([] { RwMutex().unlock_shared(); }, "sync: RUnlock of unlocked RWMutex");
  expect_fatal(
      [] {
        RwMutex mu;
        mu.lock();
        mu.unlock_shared();
      },
      "sync: RUnlock of unlocked RWMutex");
  expect_fatal(
      [] {
        RwMutex mu;
        for (int i = 0; i < 20'000; i++) std::shared_lock l{mu};  // counted per CPU by now
        mu.unlock_shared();
        mu.unlock_shared();
      },
      "sync: RUnlock of unlocked RWMutex");
}

TEST(SyncMisuse, CondWaitWithoutTheLock) {
  expect_fatal(
      [] {
        Mutex mu;
        Cond cv;
        std::unique_lock u{mu};
        mu.unlock();
        cv.wait(u);
      },
      "sync: unlock of unlocked mutex");
}

TEST(SyncMisuse, DestroyingWhatIsWaitedForNamesWhoWaits) {
  expect_fatal(
      [] {
        auto mu = std::make_unique<RwMutex>();
        mu->lock();
        go_parked("sync.RWMutex.RLock", [&] { mu->lock_shared(); });
        mu.reset();
      },
      "weft: RwMutex destroyed while waited for by goroutine ");
  expect_fatal([] { RwMutex mu; mu.lock_shared(); }, "weft: RwMutex destroyed while locked");
  expect_fatal(
      [] {
        RwMutex mu;
        for (int i = 0; i < 20'000; i++) std::shared_lock l{mu};
        mu.lock_shared();
      },
      "weft: RwMutex destroyed while locked");
  expect_fatal(
      [] {
        Mutex mu;
        auto cv = std::make_unique<Cond>();
        go_parked("sync.Cond.Wait", [&] {
          std::unique_lock u{mu};
          cv->wait(u);
        });
        cv.reset();
      },
      "weft: Cond destroyed while waited for by goroutine ");
  expect_fatal(
      [] {
        auto sem = std::make_unique<Semaphore>(1);
        sem->acquire();
        go_parked("semacquire", [&] { sem->acquire(); });
        sem.reset();
      },
      "weft: Semaphore destroyed while waited for by goroutine ");
  expect_fatal(
      [] {
        auto b = std::make_unique<Barrier>(2);
        go_parked("barrier wait", [&] { b->arrive_and_wait(); });
        b.reset();
      },
      "weft: Barrier destroyed while waited for by goroutine ");
}

TEST(SyncMisuse, ADeadlockSaysWhoWaitsOnWhat) {
  const Child c = child([] {
    run([] {
      RwMutex rw;
      rw.lock();
      Mutex mu;
      Cond cv;
      Semaphore sem(0);
      Latch latch(1);
      Barrier b(2);
      Once once;
      auto [ctx, cancel] = with_cancel(background());
      auto never = make_chan<int>();
      go([&] { rw.lock(); });
      go([&] { rw.lock_shared(); });
      go([&] {
        std::unique_lock u{mu};
        cv.wait(u);
      });
      go([&] { sem.acquire(); });
      go([&] { latch.wait(); });
      go([&] { b.arrive_and_wait(); });
      go([&] { once.call([&] { once.call([] {}); }); });
      never.recv(ctx);
    });
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("fatal error: all goroutines are asleep - deadlock!")) << c.report();
  for (const char* line :
       {"[sync.RWMutex.Lock] waits to write under RwMutex 0x", "[sync.RWMutex.RLock] waits to read under RwMutex 0x",
        "[sync.Cond.Wait] waits for a notification of Cond 0x", "[semacquire] waits for a release of Semaphore 0x",
        "[latch wait] waits for count_down() on Latch 0x", "[barrier wait] waits for others at Barrier 0x",
        "[sync.Mutex.Lock] waits for an unlock of Mutex 0x", "goroutine 1 [chan receive] waits for a sender on chan 0x"})
    EXPECT_TRUE(c.says(line)) << line << c.report();
}

TEST(SyncMisuse, AContextWithADeadlineHoldsTheReportBack) {  // 86
  const Child c = child([] {
    return run([] {
      auto [ctx, cancel] = with_timeout(background(), 20ms);
      EXPECT_EQ(make_chan<int>().recv(ctx).status, RecvStatus::Canceled);
      return 7;
    });
  });
  if (c.ran) {
    EXPECT_EQ(c.status, 7) << c.report();
  }
}

}  // namespace
}  // namespace weft::test
