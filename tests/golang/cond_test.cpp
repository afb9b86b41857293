// Cond: who is woken, in which order, and by what else a wait may end.
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(Cond, NotifyOneWakesExactlyOne) {  // 123
  each_run([] {
    Mutex mu;
    Cond cv;
    constexpr int kWaiters = 5;
    Chan<void> awake = make_chan<void>(kWaiters);
    for (int i = 0; i < kWaiters; i++)
      go_parked("sync.Cond.Wait", [&, awake] {
        std::unique_lock u{mu};
        cv.wait(u);
        EXPECT_FALSE(mu.try_lock()) << "the lock is held again";
        awake.send();
      });
    for (int left = kWaiters; left > 0; left--) {
      EXPECT_EQ(awake.try_recv().status, RecvStatus::Empty) << "nobody was notified";
      {
        std::lock_guard l{mu};
        cv.notify_one();
      }
      awake.recv();
      EXPECT_TRUE(settle(left, kPatience));
      EXPECT_EQ(awake.try_recv().status, RecvStatus::Empty) << "one too many";
    }
    cv.notify_one();  // nobody there: forgotten
    cv.notify_all();
    std::unique_lock u{mu};
    EXPECT_FALSE(cv.wait_for(u, 2ms)) << "a notification of before was kept";
  });
}

TEST(Cond, WaitersAreWokenInOrder) {  // 123
  each_run([] {
    Mutex mu;
    Cond cv;
    constexpr int kWaiters = 100;
    std::vector<int> order;
    for (int i = 0; i < kWaiters; i++)
      go_parked("sync.Cond.Wait", [&, i] {
        std::unique_lock u{mu};
        cv.wait(u);
        order.push_back(i);
      });
    for (int i = 0; i < kWaiters; i++) {
      cv.notify_one();
      eventually([&] {
        std::lock_guard l{mu};
        return order.size() == static_cast<size_t>(i) + 1;
      });
    }
    for (int i = 0; i < kWaiters; i++) EXPECT_EQ(order[static_cast<size_t>(i)], i);
    EXPECT_TRUE(settle(1, kPatience));
  });
}

TEST(Cond, NotifyAllWakesAll) {  // 123
  each_run([] {
    Mutex mu;
    Cond cv;
    constexpr int kWaiters = 200;
    int awake = 0, round = 0;
    for (int i = 0; i < kWaiters; i++)
      go([&] {
        for (int r = 0; r < 3; r++) {
          std::unique_lock u{mu};
          cv.wait(u, [&] { return round > r; });
          awake++;
        }
      });
    for (int r = 1; r <= 3; r++) {
      {
        std::lock_guard l{mu};
        round = r;
      }
      cv.notify_all();
      eventually([&] {
        std::lock_guard l{mu};
        return awake == r * kWaiters;
      });
    }
    EXPECT_TRUE(settle(1, kPatience));
  });
}

// As Go's TestCondRace: three that hand a number on.
TEST(Cond, HandOverAmongThree) {  // 123
  each_run([] {
    Mutex mu;
    Cond cv;
    int x = 0;
    WaitGroup wg;
    wg.go([&] {
      std::unique_lock u{mu};
      x = 1;
      cv.wait(u);
      EXPECT_EQ(x, 2);
      x = 3;
      cv.notify_one();
    });
    wg.go([&] {
      for (;;) {
        std::unique_lock u{mu};
        if (x == 1) {
          x = 2;
          cv.notify_one();
          return;
        }
        u.unlock();
        yield();
      }
    });
    wg.go([&] {
      for (;;) {
        std::unique_lock u{mu};
        if (x == 2) {
          cv.wait(u);
          EXPECT_EQ(x, 3);
          return;
        }
        if (x == 3) return;
        u.unlock();
        yield();
      }
    });
    wg.wait();
  });
}

// As Go's TestCondSignalStealing: a notification for who waits is not taken by who comes after it.
TEST(Cond, ALaterWaiterCannotStealANotification) {  // 123
  each_run([] {
    for (int i = 0; i < scaled(1000, 100); i++) {
      Mutex mu;
      Cond cv;
      Chan<void> first_in = make_chan<void>(), first_out = make_chan<void>();
      go([&, first_in, first_out] {
        std::unique_lock u{mu};
        first_in.send();
        cv.wait(u);
        u.unlock();
        first_out.send();
      });
      first_in.recv();
      mu.lock();  // the first has queued: it let go of the lock by waiting
      mu.unlock();
      std::atomic<bool> done{false};
      go([&] {
        while (!done) {
          std::unique_lock u{mu};
          if (!done) cv.wait_for(u, 50ms);
        }
      });
      cv.notify_one();
      first_out.recv();  // a stolen notification would block here for ever
      {
        std::lock_guard l{mu};
        done = true;
      }
      cv.notify_all();
      EXPECT_TRUE(settle(1, kPatience));
      EXPECT_TRUE(settle(1, kPatience));
    }
  });
}

TEST(Cond, WaitsEndByTimeAndByContext) {
  each_run([] {
    Mutex mu;
    Cond cv;
    bool ready = false;
    std::unique_lock u{mu};
    const Time before = now();
    EXPECT_FALSE(cv.wait_for(u, 2ms));
    EXPECT_GE(now() - before, 2ms);
    EXPECT_TRUE(u.owns_lock());
    EXPECT_FALSE(mu.try_lock());
    EXPECT_FALSE(cv.wait_for(u, -1s));
    EXPECT_FALSE(cv.wait_until(u, now() + 1ms, [&] { return ready; }));
    u.unlock();
    auto [ctx, cancel] = with_cancel(background());
    go_parked("sync.Cond.Wait", [&, ctx = ctx] {
      std::unique_lock l{mu};
      EXPECT_EQ(cv.wait(l, ctx), Errc::canceled);
      EXPECT_FALSE(mu.try_lock());
    });
    go_parked("sync.Cond.Wait", [&, ctx = ctx] {
      std::unique_lock l{mu};
      EXPECT_EQ(cv.wait(l, ctx, [&] { return ready; }), Errc::canceled);
    });
    go_parked("sync.Cond.Wait", [&] {
      std::unique_lock l{mu};
      EXPECT_TRUE(cv.wait_for(l, 1h, [&] { return ready; }));
    });
    cancel();
    EXPECT_TRUE(settle(2, kPatience));
    {
      std::unique_lock l{mu};
      EXPECT_EQ(cv.wait(l, ctx), Errc::canceled) << "level-triggered";
      EXPECT_FALSE(mu.try_lock()) << "the lock was not let go";
      ready = true;
      EXPECT_FALSE(cv.wait(l, ctx, [&] { return ready; })) << "what holds need not wait";
    }
    cv.notify_one();
    EXPECT_TRUE(settle(1, kPatience)) << "those that gave up took the notification";
  });
}

// Of n waiters some give up while n are notified one by one: nobody is left, no notification is lost.
TEST(Cond, ANotificationIsNotLostToOneThatGivesUp) {
  each_run([] {
    for (int round = 0; round < scaled(300, 30); round++) {
      Mutex mu;
      Cond cv;
      int notified = 0, given_up = 0, sent = 0;
      constexpr int kWaiters = 8;
      for (int i = 0; i < kWaiters; i++)
        go([&, i] {
          std::unique_lock u{mu};
          if (i % 2) {
            (cv.wait_for(u, std::chrono::microseconds(i * 20)) ? notified : given_up)++;
          } else {
            cv.wait(u);
            notified++;
          }
        });
      while (num_goroutines() > 1) {
        {
          std::lock_guard l{mu};
          cv.notify_one();
          sent++;
        }
        yield();
      }
      EXPECT_EQ(notified + given_up, kWaiters);
      EXPECT_GE(notified, kWaiters / 2);
    }
  });
}

TEST(Cond, WithTheTwoLocksOfAnRwMutex) {
  each_run([] {
    RwMutex mu;
    Cond cv;
    int value = 0;
    go_parked("sync.Cond.Wait", [&] {
      std::shared_lock r{mu};
      cv.wait(r, [&] { return value == 1; });
      EXPECT_FALSE(mu.try_lock());
    });
    go_parked("sync.Cond.Wait", [&] {
      std::unique_lock w{mu};
      cv.wait(w, [&] { return value == 1; });
      EXPECT_FALSE(mu.try_lock_shared());
    });
    {
      std::unique_lock w{mu};
      value = 1;
    }
    cv.notify_all();
    EXPECT_TRUE(settle(1, kPatience));
  });
}

// Notified while the lock is held: in the lock's queue, woken by its unlock, and the lock is whole afterwards.
TEST(Cond, ANotifiedWaiterWaitsForTheLock) {
  each_run([] {
    Mutex mu;
    Cond cv;
    std::vector<int> order;
    std::vector<uint64_t> ids;
    for (int i = 0; i < 4; i++)
      ids.push_back(go_parked("sync.Cond.Wait", [&, i] {
        std::unique_lock u{mu};
        cv.wait(u);
        order.push_back(i);
        yield();
      }));
    mu.lock();
    cv.notify_one();
    until_parked(ids[0], "sync.Mutex.Lock");
    until_parked(ids[1], "sync.Cond.Wait");
    EXPECT_TRUE(order.empty());
    mu.unlock();
    EXPECT_TRUE(settle(4, kPatience));
    {
      std::lock_guard l{mu};
      cv.notify_all();
    }
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(order.front(), 0);
    EXPECT_EQ(order.size(), 4u);
    EXPECT_TRUE(mu.try_lock());
    mu.unlock();
  });
}

TEST(Cond, StopOfTheRuntimeUnwindsANotifiedWaiter) {
  for (const Machine& m : kMachines) {
    auto mu = std::make_shared<Mutex>();
    auto cv = std::make_shared<Cond>();
    const StopResult r = in_runtime(m, [&] {
      const uint64_t id = go_parked("sync.Cond.Wait", [mu, cv] {
        std::unique_lock u{*mu};
        cv->wait(u);
      });
      mu->lock();
      cv->notify_one();
      until_parked(id, "sync.Mutex.Lock");
    });
    EXPECT_EQ(r.unwound.size(), 1u);
    mu->unlock();
    EXPECT_TRUE(mu->try_lock());
    mu->unlock();
  }
}

TEST(Cond, StopOfTheRuntimeUnwindsAWaiter) {
  for (const Machine& m : kMachines) {
    auto mu = std::make_shared<Mutex>();
    auto cv = std::make_shared<Cond>();
    const StopResult r = in_runtime(m, [&] {
      go_parked("sync.Cond.Wait", [mu, cv] {
        std::unique_lock u{*mu};
        cv->wait(u);
      });
    });
    EXPECT_EQ(r.unwound.size(), 1u);
    EXPECT_TRUE(mu->try_lock()) << "its lock is free";
    mu->unlock();
  }
}

TEST(Cond, SharedWithPlainThreads) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    {
      constexpr int kTurns = scaled(2000, 200);
      Mutex mu;
      Cond cv;
      int turn = 0;
      WaitGroup wg;
      auto play = [&](int me) {
        for (int i = 0; i < kTurns; i++) {
          std::unique_lock u{mu};
          cv.wait(u, [&] { return turn % 2 == me; });
          turn++;
          cv.notify_all();
        }
      };
      wg.go(play, 0);
      std::thread t(play, 1);
      wg.wait();
      t.join();
      EXPECT_EQ(turn, 2 * kTurns);
    }
    rt.stop(5s);
  }
}

}  // namespace
}  // namespace weft::test
