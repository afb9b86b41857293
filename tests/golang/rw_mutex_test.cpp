// RwMutex: readers together, writers alone, and who goes first.
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(RwMutex, ReadersReadInParallel) {  // 122
  each_run([] {
    RwMutex mu;
    for (int readers : {1, 3, 4, 10}) {
      Chan<void> in = make_chan<void>(), go_on = make_chan<void>();
      for (int i = 0; i < readers; i++)
        go([&, in, go_on] {
          mu.lock_shared();
          in.send();
          go_on.recv();
          mu.unlock_shared();
        });
      for (int i = 0; i < readers; i++) in.recv();  // all of them hold it
      EXPECT_FALSE(mu.try_lock());
      EXPECT_TRUE(mu.try_lock_shared());
      mu.unlock_shared();
      go_on.close();
      EXPECT_TRUE(settle(1, kPatience));
    }
    EXPECT_TRUE(mu.try_lock());
    EXPECT_FALSE(mu.try_lock_shared());
    EXPECT_FALSE(mu.try_lock());
    mu.unlock();
  });
}

// A counter that writers raise by 10,000 and readers by one, as Go's HammerRWMutex.
TEST(RwMutex, HammeredByReadersAndWriters) {  // 122
  for (const Machine& m : kMachines)
    for (int readers : {1, 3, 10}) {
      in_run(m, [&] {
        constexpr int kEach = scaled(3000, 300);
        RwMutex mu;
        std::atomic<int> activity{0};
        int64_t plain = 0;
        WaitGroup wg;
        for (int w = 0; w < 2; w++)
          wg.go([&, w] {
            for (int i = 0; i < kEach; i++) {
              if (i % 3 == w) {
                while (!mu.try_lock()) yield();
              } else if (i % 7 == 0) {
                while (!mu.try_lock_for(50us)) {
                }
              } else {
                mu.lock();
              }
              EXPECT_EQ(activity.fetch_add(10'000), 0);
              plain++;
              if (i % 16 == 0) yield();
              activity -= 10'000;
              mu.unlock();
            }
          });
        for (int r = 0; r < readers; r++)
          wg.go([&] {
            for (int i = 0; i < kEach; i++) {
              if (i % 5 == 0) {
                while (!mu.try_lock_shared_for(20us)) {
                }
              } else {
                mu.lock_shared();
              }
              const int n = activity.fetch_add(1);
              EXPECT_TRUE(n >= 0 && n < 10'000) << n;
              if (i % 16 == 0) yield();
              activity--;
              mu.unlock_shared();
            }
          });
        wg.wait();
        EXPECT_EQ(plain, 2 * kEach);
        EXPECT_TRUE(mu.try_lock());
        mu.unlock();
      });
    }
}

TEST(RwMutex, AWriterThatWaitsKeepsNewReadersOut) {  // 122
  each_run([] {
    RwMutex mu;
    mu.lock_shared();
    std::string order;
    go_parked("sync.RWMutex.Lock", [&] {
      mu.lock();
      order += 'w';
      mu.unlock();
    });
    EXPECT_FALSE(mu.try_lock_shared());
    go_parked("sync.RWMutex.RLock", [&] {
      mu.lock_shared();
      order += 'r';
      mu.unlock_shared();
    });
    EXPECT_EQ(order, "");
    mu.unlock_shared();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(order, "wr");
  });
}

TEST(RwMutex, WaitingReadersGoBeforeTheNextWriter) {  // 122
  each_run([] {
    RwMutex mu;
    mu.lock();
    std::string order;
    Mutex order_mu;
    auto note = [&](char c) {
      std::lock_guard l(order_mu);
      order += c;
    };
    go_parked("sync.RWMutex.Lock", [&] {
      mu.lock();
      note('1');
      mu.unlock();
    });
    go_parked("sync.RWMutex.Lock", [&] {
      mu.lock();
      note('2');
      mu.unlock();
    });
    for (int i = 0; i < 3; i++)
      go_parked("sync.RWMutex.RLock", [&] {
        mu.lock_shared();
        note('r');
        mu.unlock_shared();
      });
    mu.unlock();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(order, "rrr12");
  });
}

TEST(RwMutex, AWriterThatGivesUpLetsTheReadersIn) {
  each_run([] {
    RwMutex mu;
    mu.lock_shared();
    auto [ctx, cancel] = with_cancel(background());
    go_parked("sync.RWMutex.Lock", [&, ctx = ctx] { EXPECT_EQ(mu.lock(ctx), Errc::canceled); });
    for (int i = 0; i < 3; i++)
      go_parked("sync.RWMutex.RLock", [&] {
        mu.lock_shared();
        mu.unlock_shared();
      });
    cancel();
    EXPECT_TRUE(settle(1, kPatience)) << "a reader still waits for a writer that has left";
    EXPECT_TRUE(mu.try_lock_shared());
    mu.unlock_shared();
    mu.unlock_shared();
    // And a reader that gives up leaves nothing behind.
    mu.lock();
    auto [ctx2, cancel2] = with_cancel(background());
    go_parked("sync.RWMutex.RLock", [&, ctx = ctx2] { EXPECT_EQ(mu.lock_shared(ctx), Errc::canceled); });
    EXPECT_FALSE(mu.try_lock_shared_for(1ms));
    EXPECT_FALSE(mu.try_lock_for(1ms));
    cancel2();
    EXPECT_TRUE(settle(1, kPatience));
    mu.unlock();
    EXPECT_EQ(mu.lock(ctx2), Errc::canceled) << "level-triggered";
    EXPECT_EQ(mu.lock_shared(ctx2), Errc::canceled);
    EXPECT_TRUE(mu.try_lock());
    mu.unlock();
  });
}

TEST(RwMutex, StandardLocks) {
  each_run([] {
    RwMutex mu;
    {
      std::shared_lock a{mu};
      std::shared_lock b{mu, std::try_to_lock};
      EXPECT_TRUE(b.owns_lock());
      std::unique_lock w{mu, std::defer_lock};
      EXPECT_FALSE(w.try_lock_for(1ms));
    }
    std::unique_lock w{mu};
    std::shared_lock r{mu, std::defer_lock};
    EXPECT_FALSE(r.try_lock_until(now()));
  });
}

TEST(RwMutex, UnlockByAnotherGoroutineIsAllowed) {  // 120
  each_run([] {
    RwMutex mu;
    mu.lock();
    go([&] { mu.unlock(); });
    mu.lock_shared();
    go([&] { mu.unlock_shared(); });
    mu.lock();
    mu.unlock();
    EXPECT_TRUE(settle(1, kPatience));
  });
}

TEST(RwMutex, SharedWithPlainThreads) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    {
      constexpr int kEach = scaled(3000, 300);
      RwMutex mu;
      int64_t a = 0, b = 0;
      WaitGroup wg;
      auto write = [&] {
        for (int i = 0; i < kEach; i++) {
          std::unique_lock l{mu};
          a++;
          b++;
        }
      };
      auto read = [&] {
        for (int i = 0; i < kEach; i++) {
          std::shared_lock l{mu};
          EXPECT_EQ(a, b);
        }
      };
      std::vector<std::thread> threads;
      for (int i = 0; i < 2; i++) {
        wg.go(write);
        wg.go(read);
        threads.emplace_back(write);
        threads.emplace_back(read);
      }
      wg.wait();
      for (std::thread& t : threads) t.join();
      EXPECT_EQ(a, 4 * kEach);
    }
    rt.stop(5s);
  }
}

// ---- readers that count themselves per CPU --------------------------------------------------------------------------

constexpr int kMany = 20'000;  // reads without a writer until they do

void read_often(RwMutex& mu) {
  for (int i = 0; i < kMany; i++) std::shared_lock l{mu};
}

// What a writer pays is a barrier, once. The calls are counted on a plain thread, without a runtime: no other asks for any.
TEST(RwMutex, OnlyAWriterAfterManyReadsPaysABarrier) {
  if (!detail::has_sections()) GTEST_SKIP() << "no rseq";
  RwMutex mu;
  rt::fault_install({});
  auto barriers = [] { return rt::fault_calls(rt::Call::Membarrier); };
  for (int i = 0; i < 1000; i++) {
    std::unique_lock{mu};
    std::shared_lock{mu};
  }
  EXPECT_EQ(barriers(), 0u);
  // Who is moved to another CPU while it reads ends the mode: as often as it takes.
  auto writer_pays = [&] {
    read_often(mu);
    const auto before = barriers();
    EXPECT_TRUE(mu.try_lock());
    mu.unlock();
    return barriers() == before + 1;
  };
  int tries = 1;
  while (!writer_pays() && tries < 100) tries++;
  EXPECT_LT(tries, 100);
  const auto paid = barriers();
  for (int i = 0; i < 100; i++) std::unique_lock{mu};
  EXPECT_EQ(barriers(), paid);
  rt::fault_restore();
}

TEST(RwMutex, ManyReadsKeepWritersOutAndWaitingWritersNewReaders) {  // 122
  each_run([] {
    RwMutex mu;
    for (int round = 0; round < 3; round++) {
      read_often(mu);
      mu.lock_shared();
      mu.lock_shared();
      EXPECT_FALSE(mu.try_lock());
      mu.unlock_shared();
      read_often(mu);
      EXPECT_FALSE(mu.try_lock_for(1us));
      read_often(mu);
      bool wrote = false;
      go_parked("sync.RWMutex.Lock", [&] {
        mu.lock();
        wrote = true;
        mu.unlock();
      });
      EXPECT_FALSE(mu.try_lock_shared());
      EXPECT_FALSE(wrote);
      mu.unlock_shared();
      mu.lock_shared();  // behind the writer
      EXPECT_TRUE(wrote);
      mu.unlock_shared();
      EXPECT_TRUE(settle(1, kPatience));
      EXPECT_TRUE(mu.try_lock());
      mu.unlock();
    }
  });
}

// A reader may go on on another thread, and leave there: only the sum counts.
TEST(RwMutex, AReaderMayLeaveOnAnotherThreadAfterManyReads) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    {
      RwMutex mu;
      for (int i = 0; i < scaled(20, 5); i++) {
        read_often(mu);
        std::thread([&] { mu.lock_shared(); }).join();
        WaitGroup wg;
        wg.go([&] {
          EXPECT_FALSE(mu.try_lock());
          read_often(mu);
          mu.unlock_shared();
        });
        wg.wait();
        EXPECT_TRUE(mu.try_lock());
        mu.unlock();
      }
      read_often(mu);  // destroyed as it is
    }
    rt.stop(5s);
  }
}

TEST(RwMutex, HammeredByManyReadsBetweenWrites) {  // 122
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    {
      RwMutex mu;
      std::atomic<bool> stop{false};
      int64_t a = 0, b = 0;
      auto read = [&] {
        for (int i = 1; !stop; i++) {
          std::shared_lock l{mu};
          EXPECT_EQ(a, b);
          if (i % 1000 == 0) yield();  // others read meanwhile, and it may go on on another thread
        }
      };
      WaitGroup wg;
      for (int i = 0; i < 3; i++) wg.go(read);
      std::thread outside(read);
      constexpr int kWrites = scaled(60, 10);
      std::atomic<int> reads{0};
      WaitGroup writers;
      for (int w = 0; w < 2; w++) {
        writers.go([&] {
          for (int i = 0; i < kWrites; i++) {
            read_often(mu);
            reads += kMany;
            mu.lock();
            a++;
            for (int k = 0; k < 100; k++) asm volatile("" ::: "memory");
            b++;
            mu.unlock();
          }
        });
      }
      writers.wait();
      stop = true;
      wg.wait();
      outside.join();
      EXPECT_EQ(a, 2 * kWrites);
      EXPECT_TRUE(mu.try_lock());
      mu.unlock();
    }
    rt.stop(5s);
  }
}

}  // namespace
}  // namespace weft::test
