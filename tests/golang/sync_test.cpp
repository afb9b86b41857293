// Mutex and WaitGroup: exclusion, hand-over, misuse. Destruction right after the last use is part
// of the contract.
#include <array>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(Mutex, HammeredByTenExcludes) {  // 116
  each_run([] {
    constexpr int kEach = scaled(10000, 1000);
    Mutex mu;
    int64_t plain = 0;
    WaitGroup wg;
    for (int g = 0; g < 10; g++)
      wg.go([&, g] {
        for (int i = 0; i < kEach; i++) {
          if ((i + g) % 3 == 0) {
            while (!mu.try_lock()) yield();
          } else {
            mu.lock();
          }
          plain++;
          if (i % 64 == 0) yield();
          mu.unlock();
        }
      });
    wg.wait();
    EXPECT_EQ(plain, 10 * kEach);
  });
}

TEST(Mutex, TryLockNeverBlocks) {  // 116
  each_run([] {
    Mutex mu;
    EXPECT_TRUE(mu.try_lock());
    EXPECT_FALSE(mu.try_lock());
    go_parked("sync.Mutex.Lock", [&] {
      mu.lock();
      mu.unlock();
    });
    EXPECT_FALSE(mu.try_lock());
    mu.unlock();
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_TRUE(mu.try_lock());
    mu.unlock();
  });
}

TEST(Mutex, TimedLockTimesOutAndSucceeds) {
  each_run([] {
    Mutex mu;
    mu.lock();
    const Time before = now();
    EXPECT_FALSE(mu.try_lock_for(3ms));
    EXPECT_GE(now() - before, 3ms);
    EXPECT_FALSE(mu.try_lock_for(0ms));
    EXPECT_FALSE(mu.try_lock_for(-1h));
    go_parked("sync.Mutex.Lock", [&] {
      EXPECT_TRUE(mu.try_lock_for(1h));
      mu.unlock();
    });
    mu.unlock();
    EXPECT_TRUE(settle(1, 30s));
    // One that timed out while others queue leaves them in the queue.
    mu.lock();
    std::atomic<int> got{0};
    for (int i = 0; i < 5; i++) {
      go_parked("sync.Mutex.Lock", [&] {
        mu.lock();
        got++;
        mu.unlock();
      });
      // On a busy machine nobody may see this one wait: its time is over soon.
      go([&] {
        if (mu.try_lock_for(1ms)) {
          got += 100;
          mu.unlock();
        }
      });
    }
    eventually([] { return num_goroutines() == 6; });
    mu.unlock();
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_EQ(got.load(), 5);
  });
}

TEST(Mutex, UnlockByAnotherGoroutineIsAllowed) {  // 120
  each_run([] {
    Mutex mu;
    mu.lock();
    Chan<void> c = make_chan<void>();
    go([&] {
      mu.unlock();
      c.send();
    });
    c.recv();
    EXPECT_TRUE(mu.try_lock());
    mu.unlock();
  });
}

TEST(Mutex, AWaiterGetsTheLockAgainstABusyHolder) {  // 118
  each_run([] {
    Mutex mu;
    std::atomic<bool> stop{false};
    WaitGroup wg;
    wg.go([&] {
      while (!stop) {
        mu.lock();
        sleep_for(100us);
        mu.unlock();
      }
    });
    const Time before = now();
    for (int i = 0; i < 10; i++) {
      sleep_for(100us);
      mu.lock();
      mu.unlock();
    }
    EXPECT_LT(now() - before, 10s);
    stop = true;
    wg.wait();
  });
}

TEST(Mutex, StarvingWaitersAreServedInOrder) {  // 119
  each_run([] {
    for (int round = 0; round < 3; round++) {
      Mutex mu;
      mu.lock();
      std::vector<int> order;
      for (int i = 0; i < 10; i++)
        go_parked("sync.Mutex.Lock", [&, i] {
          mu.lock();
          order.push_back(i);
          sleep_for(100us);
          mu.unlock();
        });
      sleep_for(3ms);  // all are older than a millisecond now
      mu.unlock();
      EXPECT_TRUE(settle(1, 30s));
      ASSERT_EQ(order.size(), 10u);
      // The first to be woken is the oldest; once it has been passed over for a millisecond nobody
      // overtakes.
      EXPECT_EQ(order.front(), 0);
      for (size_t i = 1; i < order.size(); i++) EXPECT_EQ(order[i], static_cast<int>(i));
    }
  });
}

// As Go's TestSemaHandoff: an unlock in starvation mode gives the lock to the waiter, so whoever comes meanwhile finds it taken.
TEST(Mutex, NobodyBargesInWhenItIsHandedOver) {  // 119, 121
  in_run({1, 1}, [] {
    Mutex mu;
    mu.lock();
    std::string order;
    go_parked("sync.Mutex.Lock", [&] {
      mu.lock();
      order += "waiter ";
      mu.unlock();
    });
    sleep_for(2ms);  // the subject: a waiter older than a millisecond
    mu.unlock();     // wakes it, and it is still free to take:
    EXPECT_TRUE(mu.try_lock());
    yield();         // it finds the lock taken again, and starves
    mu.unlock();     // handed over
    EXPECT_FALSE(mu.try_lock()) << "barged in";
    EXPECT_FALSE(mu.try_lock_for(0ns));
    EXPECT_EQ(order, "");
    mu.lock();  // behind it
    order += "main";
    mu.unlock();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(order, "waiter main");
    EXPECT_TRUE(mu.try_lock()) << "it is back in normal mode";
    mu.unlock();
  });
}

TEST(Mutex, AWaiterThatFindsItTakenAgainKeepsItsPlace) {  // 119
  in_run({1, 1}, [] {
    Mutex mu;
    mu.lock();
    std::string order;
    for (const char* name : {"first ", "second "})
      go_parked("sync.Mutex.Lock", [&mu, &order, name] {
        mu.lock();
        order += name;
        mu.unlock();
      });
    mu.unlock();  // wakes the first
    EXPECT_TRUE(mu.try_lock());
    yield();  // it waits again
    mu.unlock();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(order, "first second ");
  });
}

// Go's vet and its run-time checks find copies of what is in use; here there are none.
template <class T>
constexpr bool kStays = !std::is_copy_constructible_v<T> && !std::is_move_constructible_v<T> && !std::is_copy_assignable_v<T> &&
                        !std::is_move_assignable_v<T>;
static_assert(kStays<Mutex> && kStays<RwMutex> && kStays<Cond> && kStays<Once> && kStays<WaitGroup> && kStays<Semaphore> &&
                  kStays<Latch> && kStays<Barrier> && kStays<ErrGroup> && kStays<Pool<int>>,
              "117, 123");

TEST(Mutex, MayBeDestroyedWhenTheLastUnlockHasHandedOver) {
  each_run([] {
    for (int i = 0; i < scaled(2000, 300); i++) {
      auto mu = std::make_unique<Mutex>();
      mu->lock();
      Chan<void> locked = make_chan<void>();
      go([&, p = mu.get()] {
        p->lock();
        locked.send();
        p->unlock();
      });
      for (int k = 0; k < i % 4; k++) yield();
      mu->unlock();
      locked.recv();
      mu->lock();  // after the other's unlock
      mu->unlock();
      mu.reset();
    }
  });
}

// Counted on a plain thread, without a runtime: no other asks for any.
TEST(Mutex, NobodyPaysABarrierForALockThatNobodyWaitsFor) {
  rt::fault_install({});
  Mutex mu;
  for (int i = 0; i < 1000; i++) {
    std::lock_guard{mu};
    EXPECT_TRUE(mu.try_lock());
    mu.unlock();
  }
  EXPECT_EQ(rt::fault_calls(rt::Call::Membarrier), 0u);
  rt::fault_restore();
}

// A waiter comes, goes, and comes again when unlocks are stores once more: none is left behind.
TEST(Mutex, WaitersThatComeNowAndThenAreWoken) {
  each_run([] {
    Mutex mu;
    int64_t plain = 0;
    for (int i = 0; i < scaled(20, 5); i++) {
      for (int k = 0; k < 20'000; k++) {
        std::lock_guard l{mu};
        plain++;
      }
      mu.lock();
      WaitGroup wg;
      for (int k = 0; k < 3; k++)
        wg.go([&] {
          std::lock_guard l{mu};
          plain++;
        });
      for (int k = 0; k < i % 5; k++) yield();
      mu.unlock();
      wg.wait();
    }
    EXPECT_EQ(plain, scaled(20, 5) * 20'003);
  });
}

TEST(Mutex, SharedWithPlainThreads) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    {
      constexpr int kEach = scaled(5000, 500);
      Mutex mu;
      int64_t plain = 0;
      WaitGroup wg;
      auto work = [&] {
        for (int i = 0; i < kEach; i++) {
          std::lock_guard l{mu};
          plain++;
        }
      };
      std::vector<std::thread> threads;
      for (int i = 0; i < 3; i++) wg.go(work);
      for (int i = 0; i < 2; i++) threads.emplace_back(work);
      wg.wait();  // blocks this thread
      for (std::thread& t : threads) t.join();
      EXPECT_EQ(plain, 5 * kEach);
    }
    rt.stop(5s);
  }
}

TEST(WaitGroup, LetsAllWaitersGoWhenDone) {  // 126
  each_run([] {
    for (int round = 0; round < 8; round++) {
      constexpr int kPeers = 16;
      WaitGroup first, second;
      first.add(kPeers);
      second.add(kPeers);
      Chan<bool> exited = make_chan<bool>(kPeers);
      for (int i = 0; i < kPeers; i++)
        go([&] {
          first.done();
          second.wait();
          exited.send(true);
        });
      first.wait();
      for (int i = 0; i < kPeers; i++) {
        EXPECT_EQ(exited.try_recv().status, RecvStatus::Empty) << "let go too early";
        second.done();
      }
      for (int i = 0; i < kPeers; i++) (void)exited.recv();
    }
  });
}

TEST(WaitGroup, ZeroAndUnusedReturnAtOnce) {
  each_run([] {
    WaitGroup wg;
    wg.wait();
    wg.add(0);
    wg.wait();
    wg.add(3);
    wg.add(-3);
    wg.wait();
    // Reused after all waits returned.
    for (int i = 0; i < 100; i++) {
      wg.add(1);
      go([&] { wg.done(); });
      wg.wait();
    }
  });
}

// As Go's TestWaitGroupRace, with several waiters.
TEST(WaitGroup, MayBeUsedAgainWhenAllWaitsHaveReturned) {  // 126
  each_run([] {
    WaitGroup wg, all;
    constexpr int kRounds = scaled(2000, 200);
    std::atomic<int> n{0}, late{0};
    for (int round = 1; round <= kRounds; round++) {
      wg.add(1);
      for (int i = 0; i < 2; i++)
        wg.go([&] { n++; });
      for (int i = 0; i < 2; i++)
        all.go([&, round] {
          wg.wait();
          if (n < 2 * round) late++;
        });
      if (round % 3 == 0) yield();
      wg.done();
      wg.wait();
      EXPECT_EQ(n, 2 * round);
      all.wait();
    }
    EXPECT_EQ(late, 0) << "let go too early";
  });
}

TEST(WaitGroup, NegativeCounterPanics) {  // 126
  each_run([] {
    // What a counter holds after that panic is unspecified: these are neither used again nor
    // destroyed.
    static auto& kept = *new std::vector<WaitGroup*>;
    kept.push_back(new WaitGroup);
    EXPECT_EQ(panic_of([&] { kept.back()->done(); }), "sync: negative WaitGroup counter");
    kept.push_back(new WaitGroup);
    kept.back()->add(1);
    EXPECT_EQ(panic_of([&] { kept.back()->add(-2); }), "sync: negative WaitGroup counter");
  });
}

TEST(WaitGroup, GoCountsGoexitToo) {  // 126
  each_run([] {
    WaitGroup wg;
    std::atomic<int> n{0};
    for (int i = 0; i < 100; i++)
      wg.go([&, i] {
        n++;
        if (i % 2) goexit();
      });
    wg.wait();
    EXPECT_EQ(n.load(), 100);
    auto add = [&](int a, int b) { n += a * b; };
    wg.go(add, 2, 3);
    wg.wait();
    EXPECT_EQ(n.load(), 106);
  });
}

TEST(WaitGroup, MayBeDestroyedAsSoonAsWaitHasReturned) {
  each_run([] {
    for (int i = 0; i < scaled(5000, 500); i++) {
      auto wg = std::make_unique<WaitGroup>();
      wg->go([] {});
      wg->go([i] {
        if (i % 3 == 0) yield();
      });
      wg->wait();
      wg.reset();
    }
  });
}

TEST(WaitGroup, ReasonOfAWaiter) {
  each_run([] {
    WaitGroup wg;
    wg.add(1);
    go_parked("sync.WaitGroup.Wait", [&] { wg.wait(); });
    wg.done();
    EXPECT_TRUE(settle(1, 30s));
  });
}

TEST(Settle, ReturnsFalseWhenTheTimeRunsOut) {
  each_run([] {
    Chan<int> c = make_chan<int>();
    go_parked("chan receive", [c] { (void)c.recv(); });
    EXPECT_FALSE(settle(1, 2ms));
    EXPECT_TRUE(settle(2, 0ms));
    c.close();
    EXPECT_TRUE(settle(1, 30s));
  });
}

// They come to it before, while and after the exits happen that they wait for.
TEST(Settle, SeveralWaitForTheSameExits) {
  each_run([] {
    for (int round = 0; round < scaled(200, 30); round++) {
      Chan<void> let_go = make_chan<void>();
      Chan<bool> settled = make_chan<bool>();
      Chan<void> over = make_chan<void>();
      for (int i = 0; i < 5; i++) go([=] { let_go.recv(); });
      // Left when both settle: goroutine 1 and the two themselves.
      for (int i = 0; i < 2; i++)
        go([=] {
          settled.send(settle(3, kPatience));
          over.recv();
        });
      if (round % 2) yield();
      let_go.close();
      EXPECT_EQ(settled.recv(), true);
      EXPECT_EQ(settled.recv(), true);
      EXPECT_EQ(num_goroutines(), 3);
      over.close();
      EXPECT_TRUE(settle(1, kPatience));
    }
  });
}

// Both are parked in settle() when the last of the exits happens that they wait for.
TEST(Settle, OneExitWakesTwo) {
  each_run([] {
    for (int round = 0; round < scaled(200, 30); round++) {
      Chan<void> let_go = make_chan<void>(), over = make_chan<void>();
      std::atomic<int> settled{0};
      for (int i = 0; i < 2; i++) go([=] { let_go.recv(); });
      for (int i = 0; i < 2; i++)
        go_parked("settle", [&settled, over] {
          if (settle(3, kPatience)) settled++;
          over.recv();
        });
      EXPECT_EQ(settled.load(), 0);
      let_go.close();
      const Time before = now();
      eventually([&] { return settled == 2; });
      EXPECT_LT(now() - before, kPatience / 2) << "woken by its deadline, not by the exit";
      over.close();
      EXPECT_TRUE(settle(1, kPatience));
    }
  });
}

}  // namespace
}  // namespace weft::test
