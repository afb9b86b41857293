// Semaphore, Latch and Barrier.
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(Semaphore, NeverMoreThanThereAre) {  // 178
  each_run([] {
    constexpr int64_t kSize = 5;
    Semaphore sem(kSize);
    std::atomic<int64_t> held{0};
    WaitGroup wg;
    for (int g = 0; g < 10; g++)
      wg.go([&, g] {
        const int64_t n = g % kSize + 1;
        for (int i = 0; i < scaled(1000, 100); i++) {
          if (i % 3 == 0) {
            while (!sem.try_acquire(n)) yield();
          } else if (i % 3 == 1) {
            while (!sem.try_acquire_for(n, 50us)) {
            }
          } else {
            sem.acquire(n);
          }
          EXPECT_LE(held += n, kSize);
          if (i % 8 == 0) yield();
          held -= n;
          sem.release(n);
        }
      });
    wg.wait();
    EXPECT_TRUE(sem.try_acquire(kSize));
    EXPECT_FALSE(sem.try_acquire());
    sem.release(kSize);
  });
}

TEST(Semaphore, TryAcquire) {  // 178
  each_run([] {
    Semaphore sem(2);
    std::vector<bool> got;
    got.push_back(sem.try_acquire(1));
    got.push_back(sem.try_acquire(1));
    got.push_back(sem.try_acquire(1));
    sem.release(2);
    got.push_back(sem.try_acquire(1));
    sem.acquire(1);
    got.push_back(sem.try_acquire(0));
    EXPECT_EQ(got, (std::vector<bool>{true, true, false, true, true}));
    sem.release(2);
  });
}

TEST(Semaphore, FirstComeFirstServed) {  // 178
  each_run([] {
    Semaphore sem(3);
    sem.acquire(3);
    std::string order;
    Mutex mu;
    auto want = [&](int64_t n, char c) {
      go_parked("semacquire", [&, n, c] {
        sem.acquire(n);
        {
          std::lock_guard l(mu);
          order += c;
        }
        sem.release(n);
      });
    };
    want(2, 'a');
    want(3, 'b');
    want(1, 'c');
    sem.release(1);
    EXPECT_FALSE(sem.try_acquire(1)) << "a newcomer went before those who wait";
    EXPECT_EQ(order, "");
    sem.release(1);  // a, but not c: b is before it
    sem.release(1);
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(order, "abc");
  });
}

TEST(Semaphore, ALargeRequestIsNotStarved) {  // 178
  each_run([] {
    constexpr int64_t kSize = 4;
    Semaphore sem(kSize);
    std::atomic<bool> stop{false};
    sem.acquire(1);
    WaitGroup wg;
    for (int64_t i = 0; i < kSize; i++)
      wg.go([&] {
        while (!stop) {
          sem.acquire(1);
          yield();
          sem.release(1);
        }
      });
    sem.release(1);
    sem.acquire(kSize);
    stop = true;
    sem.release(kSize);
    wg.wait();
  });
}

TEST(Semaphore, CancelWhileWaitingTakesNothing) {  // 178
  each_run([] {
    Semaphore sem(2);
    auto [ctx, cancel] = with_cancel(background());
    EXPECT_FALSE(sem.acquire(ctx, 1));
    go_parked("semacquire", [&, ctx = ctx] { EXPECT_EQ(sem.acquire(ctx, 2), Errc::canceled); });
    go_parked("semacquire", [&] {
      sem.acquire(1);
      sem.release(1);
    });
    cancel();
    EXPECT_TRUE(settle(1, kPatience)) << "the one that gave up still holds the others up";
    EXPECT_EQ(sem.acquire(ctx, 1), Errc::canceled) << "level-triggered, also when it is free";
    EXPECT_TRUE(sem.try_acquire(1));
    sem.release(2);
    EXPECT_TRUE(sem.try_acquire(2)) << "a permit is missing";
    EXPECT_FALSE(sem.try_acquire_for(1, 1ms));
    sem.release(2);
  });
}

TEST(Semaphore, ContextsThatAreNeverDone) {
  each_run([] {
    static const ContextKey<int> kNumber{"number"};
    Semaphore sem(1);
    for (const Context& ctx : {background(), todo(), with_value(background(), kNumber, 1), without_cancel(todo())}) {
      EXPECT_FALSE(sem.acquire(ctx));
      go_parked("semacquire", [&, ctx] { EXPECT_FALSE(sem.acquire(ctx)); });
      sem.release();
      EXPECT_TRUE(settle(1, kPatience));
      EXPECT_FALSE(sem.try_acquire());
      sem.release();
    }
    EXPECT_TRUE(runtime_panic([&] { (void)sem.acquire(Context()); }));
    EXPECT_TRUE(runtime_panic([&] { (void)sem.acquire(background(), -1); }));
    EXPECT_TRUE(sem.try_acquire());
    sem.release();
  });
}

TEST(Semaphore, MoreThanThereAreWaitsForTheContextAndHoldsNobodyUp) {  // 178
  each_run([] {
    Semaphore sem(2);
    auto [ctx, cancel] = with_cancel(background());
    go_parked("semacquire", [&, ctx = ctx] { EXPECT_EQ(sem.acquire(ctx, 3), Errc::canceled); });
    EXPECT_TRUE(sem.try_acquire(2));
    sem.release(2);
    cancel();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_FALSE(sem.try_acquire_for(3, 1ms));
  });
}

TEST(Semaphore, OverReleasePanics) {  // 178
  each_run([] {
    Semaphore sem(1);
    EXPECT_EQ(panic_of([&] { sem.release(1); }), "semaphore: released more than held");
    sem.acquire();
    EXPECT_EQ(panic_of([&] { sem.release(2); }), "semaphore: released more than held");
    sem.release();
    EXPECT_TRUE(sem.try_acquire(1));
    EXPECT_TRUE(runtime_panic([&] { sem.release(-1); }));
    EXPECT_TRUE(runtime_panic([&] { sem.acquire(-1); }));
    sem.release(1);
  });
}

TEST(Semaphore, SharedWithPlainThreads) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    {
      Semaphore sem(3);
      std::atomic<int64_t> held{0};
      WaitGroup wg;
      auto work = [&](int64_t n) {
        for (int i = 0; i < scaled(1000, 100); i++) {
          sem.acquire(n);
          EXPECT_LE(held += n, 3);
          held -= n;
          sem.release(n);
        }
      };
      std::vector<std::thread> threads;
      for (int64_t n = 1; n <= 3; n++) {
        wg.go(work, n);
        threads.emplace_back(work, n);
      }
      wg.wait();
      for (std::thread& t : threads) t.join();
    }
    rt.stop(5s);
  }
}

TEST(Latch, OpensAtZero) {
  each_run([] {
    Latch latch(3);
    EXPECT_FALSE(latch.try_wait());
    EXPECT_FALSE(latch.wait_for(1ms));
    std::atomic<int> through{0};
    for (int i = 0; i < 4; i++)
      go_parked("latch wait", [&] {
        latch.wait();
        through++;
      });
    auto [ctx, cancel] = with_cancel(background());
    go_parked("latch wait", [&, ctx = ctx] { EXPECT_EQ(latch.wait(ctx), Errc::canceled); });
    latch.count_down(2);
    EXPECT_EQ(through.load(), 0);
    cancel();
    EXPECT_TRUE(settle(5, kPatience));
    latch.arrive_and_wait();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(through.load(), 4);
    EXPECT_TRUE(latch.try_wait());
    EXPECT_TRUE(latch.wait_for(0s));
  });
}

TEST(Barrier, NobodyIsAPhaseAhead) {
  each_run([] {
    constexpr int kAll = 6, kPhases = 50;
    std::atomic<int> in_phase{0};
    int completed = 0;
    Barrier b(kAll, [&] {
      EXPECT_EQ(in_phase.exchange(0), kAll);
      completed++;
    });
    WaitGroup wg;
    for (int i = 0; i < kAll; i++)
      wg.go([&, i] {
        for (int p = 0; p < kPhases; p++) {
          EXPECT_EQ(completed, p);
          in_phase++;
          if ((p + i) % 4 == 0) yield();
          b.arrive_and_wait();
        }
      });
    wg.wait();
    EXPECT_EQ(completed, kPhases);
  });
}

TEST(Barrier, DropsTimesAndContexts) {
  each_run([] {
    Barrier b(3);
    const Barrier::Arrival first = b.arrive();
    EXPECT_FALSE(b.wait_for(first, 1ms));
    auto [ctx, cancel] = with_cancel(background());
    go_parked("barrier wait", [&, ctx = ctx] { EXPECT_EQ(b.arrive_and_wait(ctx), Errc::canceled); });
    cancel();
    EXPECT_TRUE(settle(1, kPatience));
    b.arrive_and_drop();  // the third
    EXPECT_TRUE(b.wait_for(first, 0s));
    b.wait(first);
    // Two are left.
    go([&] { b.arrive_and_wait(); });
    b.arrive_and_wait();
    EXPECT_TRUE(settle(1, kPatience));
    Barrier none(0);
    EXPECT_TRUE(runtime_panic([&] { none.arrive_and_wait(); }));
  });
}

TEST(Latch, ArriveAndWaitHasLimitsAndCountsInAnyCase) {
  each_run([] {
    Latch l{4};
    EXPECT_FALSE(l.arrive_and_wait_for(2ms));
    auto [ctx, cancel] = with_cancel(background());
    go_parked("latch wait", [&, ctx = ctx] { EXPECT_EQ(l.arrive_and_wait(ctx), Errc::canceled); });
    cancel();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_FALSE(l.try_wait());
    EXPECT_TRUE(l.arrive_and_wait_for(1h, 2));
    EXPECT_TRUE(l.try_wait());
  });
}

TEST(Barrier, ArriveAndWaitForIsLimited) {
  each_run([] {
    Barrier b{2};
    EXPECT_FALSE(b.arrive_and_wait_for(2ms)) << "its arrival stays";
    EXPECT_TRUE(b.arrive_and_wait_for(1h));
    go_parked("barrier wait", [&] { EXPECT_TRUE(b.arrive_and_wait_for(1h)); });
    b.arrive_and_wait();
    EXPECT_TRUE(settle(1, kPatience));
  });
}

}  // namespace
}  // namespace weft::test
