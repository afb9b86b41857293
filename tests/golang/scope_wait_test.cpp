// Cancellation reaches every wait (G3, G4 of tests/golang/scope_test.cpp), and loses nothing (G5).
#include "tests/support/support.hpp"

#include <sys/eventfd.h>

#include <mutex>
#include <random>
#include <shared_mutex>
#include <vector>

namespace weft::test {
namespace {

using namespace std::chrono_literals;

void park_for_ever() { make_chan<int>().recv(); }

// ---- G3, G4: cancellation reaches every descendant and every wait, and stays ------------------------

TEST(ScopeWait, G3CancellationReachesEveryDescendant) {
  each_run([] {
    std::atomic<int> parked{0}, ended{0};
    auto leaf = [&] {
      Defer d{[&] { ended++; }};
      parked++;
      park_for_ever();
    };
    Task<void> t = spawn([&] {
      scope([&](Scope& a) {
        a.spawn([&] {
          scope([&](Scope& b) {
            for (int i = 0; i < 3; i++) b.spawn(leaf);
            leaf();
          });
        });
        a.spawn([&] {
          Task<void> inner = spawn(leaf);  // not a child, but its handle is
          inner.get();
        });
        a.spawn(leaf);
      });
    });
    while (parked < 6) yield();
    t.cancel();
    t.wait();
    EXPECT_EQ(ended, 6);
  });
}

TEST(ScopeWait, G3EachLaterWaitFailsAtOnce) {
  each_run([] {
    Task<int> t = spawn([] {
      int times = 0;
      for (int i = 0; i < 5; i++) {
        try {
          park_for_ever();
        } catch (const Canceled&) {
          times++;
        }
        EXPECT_EQ(sleep_for(background(), 1h), Errc::canceled);
        EXPECT_TRUE(canceled());
        EXPECT_THROW(throw_if_canceled(), Canceled);
      }
      return times;
    });
    t.cancel();
    EXPECT_EQ(t.get(), 5);
    EXPECT_FALSE(canceled());
    throw_if_canceled();
  });
}

/// One way to wait for ever. `wait` returns what a cancelled one has to say.
struct Way {
  const char* name;
  const char* reason;  // as a dump spells it
  bool throws;         // it has no result
  std::function<void()> wait;
};

/// Everything that blocks, from which the tests of G4 draw.
struct AllWays {
  Chan<int> empty = make_chan<int>();
  Chan<int> full = make_chan<int>(1);
  Mutex mu;
  RwMutex rw, read;
  Cond cv;
  Semaphore sem{1};
  WaitGroup wg;
  Latch latch{1};
  Barrier barrier{2};
  Once once;
  Timer timer{1h};
  int fd = ::eventfd(0, EFD_NONBLOCK);
  Chan<void> running = make_chan<void>(1);
  Chan<void> stop = make_chan<void>();
  Task<void> runs = spawn([] { make_chan<int>().recv(); });
  Task<void> holder;
  ErrGroup full_group;
  Singleflight<int, int> flight;
  std::vector<Way> ways;

  AllWays() {
    full.send(1);
    mu.lock();
    rw.lock();
    read.lock_shared();
    sem.acquire();
    wg.add(1);
    holder = spawn([this] {
      once.call([this] {
        running.send();
        stop.recv();
      });
    });
    running.recv();
    full_group.set_limit(1);
    full_group.go([this] { stop.recv(); });
    auto begun = make_chan<void>();
    go([this, begun] {
      flight.run(1, [&] {
        begun.send();
        stop.recv();
        return 1;
      });
    });
    begun.recv();
    auto add = [this](const char* name, const char* reason, bool throws, std::function<void()> f) {
      ways.push_back({name, reason, throws, std::move(f)});
    };
    const Context ctx = background();
    add("recv", "chan receive", true, [this] { empty.recv(); });
    add("recv_or", "chan receive", true, [this] { empty.recv_or(); });
    add("range", "chan receive", true, [this] {
      for ([[maybe_unused]] int i : empty) {
      }
    });
    add("recv_for", "chan receive", false, [this] { EXPECT_EQ(empty.recv_for(1h).status, RecvStatus::Canceled); });
    add("recv(ctx)", "chan receive", false, [this, ctx] { EXPECT_EQ(empty.recv(ctx).status, RecvStatus::Canceled); });
    add("send", "chan send", true, [this] { full.send(2); });
    add("send_for", "chan send", false, [this] { EXPECT_FALSE(full.send_for(2, 1h)); });
    add("send(ctx)", "chan send", false, [this, ctx] { EXPECT_EQ(full.send(ctx, 2), Errc::canceled); });
    add("nil recv", "chan receive (nil chan)", true, [] { Chan<int>().recv(); });
    add("nil send", "chan send (nil chan)", true, [] { Chan<int>().send(1); });
    add("nil recv(ctx)", "chan receive (nil chan)", false, [ctx] { EXPECT_EQ(Chan<int>().recv(ctx).status, RecvStatus::Canceled); });
    add("nil recv_for", "sleep", false, [] { EXPECT_EQ(Chan<int>().recv_for(1h).status, RecvStatus::Canceled); });
    add("nil send_for", "sleep", false, [] { EXPECT_FALSE(Chan<int>().send_for(1, 1h)); });
    add("select", "select", true, [this] { select(recv(empty), send(full, 2)); });
    add("select timeout", "select", true, [this] { select(recv(empty), timeout(1h)); });
    add("select only timeout", "sleep", true, [] { select(timeout(1h)); });
    add("select fd", "select", true, [this] { select(ready(fd, Io::Read), recv(empty)); });
    add("select task", "select", true, [this] { select(ready(runs)); });
    add("select none", "select (no cases)", true, [] { select(); });
    add("Selector", "select", true, [this] {
      Selector s;
      s.recv(empty).send(full, 3);
      s.wait();
    });
    add("Selector wait_for", "select", true, [this] {
      Selector s;
      s.recv(empty);
      s.wait_for(1h);
    });
    add("timer", "chan receive", true, [this] { timer.chan().recv(); });
    add("sleep", "sleep", true, [] { sleep_for(1h); });
    add("sleep(ctx)", "sleep", false, [ctx] { EXPECT_EQ(sleep_for(ctx, 1h), Errc::canceled); });
    add("Mutex", "sync.Mutex.Lock", true, [this] { mu.lock(); });
    add("Mutex for", "sync.Mutex.Lock", false, [this] { EXPECT_FALSE(mu.try_lock_for(1h)); });
    add("Mutex ctx", "sync.Mutex.Lock", false, [this, ctx] { EXPECT_EQ(mu.lock(ctx), Errc::canceled); });
    add("RwMutex", "sync.RWMutex.Lock", true, [this] { rw.lock(); });
    add("RwMutex for", "sync.RWMutex.Lock", false, [this] { EXPECT_FALSE(rw.try_lock_for(1h)); });
    add("RwMutex ctx", "sync.RWMutex.Lock", false, [this, ctx] { EXPECT_EQ(rw.lock(ctx), Errc::canceled); });
    add("RwMutex after readers", "sync.RWMutex.Lock", true, [this] { read.lock(); });
    add("RwMutex shared", "sync.RWMutex.RLock", true, [this] { rw.lock_shared(); });
    add("RwMutex shared for", "sync.RWMutex.RLock", false, [this] { EXPECT_FALSE(rw.try_lock_shared_for(1h)); });
    add("RwMutex shared ctx", "sync.RWMutex.RLock", false, [this, ctx] { EXPECT_EQ(rw.lock_shared(ctx), Errc::canceled); });
    add("Cond", "sync.Cond.Wait", true, [this] {
      Mutex m;
      std::unique_lock u{m};
      try {
        cv.wait(u);
      } catch (const Canceled&) {
        EXPECT_TRUE(u.owns_lock());
        EXPECT_FALSE(m.try_lock()) << "the lock was not taken again";
        throw;
      }
    });
    add("Cond for", "sync.Cond.Wait", false, [this] {
      Mutex m;
      std::unique_lock u{m};
      EXPECT_FALSE(cv.wait_for(u, 1h));
      EXPECT_FALSE(m.try_lock());
    });
    add("Cond ctx", "sync.Cond.Wait", false, [this, ctx] {
      RwMutex m;
      std::shared_lock u{m};
      EXPECT_EQ(cv.wait(u, ctx), Errc::canceled);
      EXPECT_FALSE(m.try_lock());
    });
    add("Semaphore", "semacquire", true, [this] { sem.acquire(); });
    add("Semaphore for", "semacquire", false, [this] { EXPECT_FALSE(sem.try_acquire_for(1, 1h)); });
    add("Semaphore ctx", "semacquire", false, [this, ctx] { EXPECT_EQ(sem.acquire(ctx), Errc::canceled); });
    add("Semaphore too many", "semacquire", true, [this] { sem.acquire(7); });
    add("WaitGroup", "sync.WaitGroup.Wait", true, [this] { wg.wait(); });
    add("WaitGroup for", "sync.WaitGroup.Wait", false, [this] { EXPECT_FALSE(wg.wait_for(1h)); });
    add("WaitGroup ctx", "sync.WaitGroup.Wait", false, [this, ctx] { EXPECT_EQ(wg.wait(ctx), Errc::canceled); });
    add("Latch", "latch wait", true, [this] { latch.wait(); });
    add("Latch for", "latch wait", false, [this] { EXPECT_FALSE(latch.wait_for(1h)); });
    add("Latch ctx", "latch wait", false, [this, ctx] { EXPECT_EQ(latch.wait(ctx), Errc::canceled); });
    add("Barrier", "barrier wait", true, [] {
      Barrier b{2};
      b.arrive_and_wait();
    });
    add("Barrier for", "barrier wait", false, [] {
      Barrier b{2};
      EXPECT_FALSE(b.wait_for(b.arrive(), 1h));
    });
    add("Barrier ctx", "barrier wait", false, [ctx] {
      Barrier b{2};
      EXPECT_EQ(b.wait(ctx, b.arrive()), Errc::canceled);
    });
    add("Once", "sync.Mutex.Lock", true, [this] { once.call([] { ADD_FAILURE() << "run twice"; }); });
    add("Once ctx", "sync.Mutex.Lock", false, [this, ctx] { EXPECT_EQ(once.call(ctx, [] {}), Errc::canceled); });
    add("Once for", "sync.Mutex.Lock", false, [this] { EXPECT_FALSE(once.call_for(1h, [] {})); });
    add("await for", "await", false, [] {
      std::optional<Resume<int>> later;
      EXPECT_FALSE(await_for<int>(1h, [&](Resume<int> done) { later.emplace(std::move(done)); }));
    });
    add("await ctx", "await", false, [ctx] {
      std::optional<Resume<void>> later;
      EXPECT_FALSE(await<void>(ctx, [&](Resume<void> done) { later.emplace(std::move(done)); }));
    });
    add("await", "await", true, [] {
      std::optional<Resume<int>> later;
      await<int>([&](Resume<int> done) { later.emplace(std::move(done)); });
    });
    add("wait_fd", "IO wait", false, [this] { EXPECT_EQ(wait_fd(fd, Io::Read), Errc::canceled); });
    add("wait_fd ctx", "IO wait", false, [this, ctx] { EXPECT_EQ(wait_fd(ctx, fd, Io::Read), Errc::canceled); });
    add("wait_fd until", "IO wait", false, [this] { EXPECT_EQ(wait_fd(fd, Io::Read, now() + 1h), Errc::canceled); });
    add("Task get", "task wait", true, [this] { runs.get(); });
    add("Task wait", "task wait", true, [this] { runs.wait(); });
    add("Task for", "task wait", false, [this] { EXPECT_FALSE(runs.wait_for(1h)); });
    add("Task ctx", "task wait", false, [this, ctx] { EXPECT_EQ(runs.wait(ctx), Errc::canceled); });
    add("settle", "settle", false, [] { EXPECT_FALSE(settle(0, 1h)); });
    add("ErrGroup", "sync.WaitGroup.Wait", false, [] {
      ErrGroup g{background()};
      g.go([](const Context& c) { c.done().recv(); });
      EXPECT_EQ(g.wait(), Errc::canceled);
    });
    add("ErrGroup for", "sync.WaitGroup.Wait", false, [this] { EXPECT_FALSE(full_group.wait_for(1h)); });
    add("ErrGroup ctx", "sync.WaitGroup.Wait", false, [this, ctx] { EXPECT_FALSE(full_group.wait(ctx)); });
    add("ErrGroup go for", "semacquire", false, [this] { EXPECT_FALSE(full_group.try_go_for(1h, [] {})); });
    add("ErrGroup go ctx", "semacquire", false, [this, ctx] { EXPECT_EQ(full_group.go(ctx, [] {}), Errc::canceled); });
    add("ErrGroup go", "semacquire", true, [] {
      auto end = make_chan<void>();
      ErrGroup g;
      g.set_limit(1);
      g.go([end] { end.recv(); });
      Defer d{[&] {
        end.close();
        g.wait();
      }};
      g.go([] {});
    });
    add("Singleflight for", "latch wait", false, [this] { EXPECT_FALSE(flight.run_for(1, 1h, [] { return 2; })); });
    add("Singleflight ctx", "latch wait", false, [this, ctx] { EXPECT_FALSE(flight.run(ctx, 1, [] { return 2; })); });
    add("Singleflight first", "latch wait", false, [this] {
      auto end = stop;
      EXPECT_FALSE(flight.run_for(2, 1h, [end] { return end.recv(), 2; }));
    });
    add("Singleflight", "latch wait", true, [] {
      auto end = make_chan<void>(), begun = make_chan<void>(1);
      Defer d{[&] { end.close(); }};
      auto flight = std::make_shared<Singleflight<int, int>>();
      go([=] {
        flight->run(1, [&] {
          begun.send();
          end.recv();
          return 1;
        });
      });
      begun.recv();
      flight->run(1, [] { return 2; });
    });
  }

  ~AllWays() {
    stop.close();
    holder.wait();
    EXPECT_FALSE(full_group.wait());
    flight.run(1, [] { return 1; });
    flight.run(2, [] { return 1; });
    mu.unlock();
    rw.unlock();
    read.unlock_shared();
    sem.release();
    wg.done();
    latch.count_down();
    ::close(fd);
  }
};

TEST(ScopeWait, G4EveryWaitIsACancellationPointWhileItLasts) {
  each_run([] {
    AllWays all;
    for (const Way& way : all.ways) {
      std::atomic<uint64_t> id{0};
      Task<bool> t = spawn([&] {
        id = goid();
        try {
          way.wait();
          return false;
        } catch (const Canceled&) {
          return true;
        }
      });
      while (id == 0) yield();
      until_parked(id, way.reason);
      t.cancel();
      EXPECT_EQ(t.get(), way.throws) << way.name << " threw Canceled, or not";
    }
  });
}

TEST(ScopeWait, G4EveryWaitIsACancellationPointWhenItBegins) {
  each_run([] {
    AllWays all;
    for (const Way& way : all.ways) {
      Task<bool> t = spawn([&] {
        while (!canceled()) yield();
        try {
          way.wait();
          return false;
        } catch (const Canceled&) {
          return true;
        }
      });
      // One that had to wait for another goroutine to get so far (Singleflight) throws there.
      t.cancel();
      EXPECT_EQ(t.get(), way.throws) << way.name << " threw Canceled, or not";
    }
  });
}

TEST(ScopeWait, ThrowOnCancelMakesEveryWaitThrow) {
  each_run([] {
    AllWays all;
    for (const Way& way : all.ways) {
      bool threw = false;
      Task<void> t = spawn([&] {
        scope({.throw_on_cancel = true}, [&](Scope& s) {
          s.spawn([&] {
            while (!canceled()) yield();
            try {
              way.wait();
            } catch (const Canceled&) {
              threw = true;
            }
          });
        });
      });
      t.cancel();
      t.wait();
      EXPECT_TRUE(threw) << way.name;
    }
  });
}

TEST(ScopeWait, BlockingThatQueuesIsACancellationPoint) {
  Config c;
  c.procs = 2;
  c.blocking_max = 1;
  Runtime rt{c};
  ASSERT_FALSE(rt.start());
  std::atomic<bool> in{false}, out{false};
  Task<void> first = rt.submit([&] {
    blocking([&] {
      in = true;
      while (!out) std::this_thread::yield();
    });
  });
  ASSERT_TRUE(eventually([&] { return in.load(); }));
  std::atomic<bool> ran{false};
  Task<void> second = rt.submit([&] { blocking([&] { ran = true; }); });
  EXPECT_TRUE(eventually([&] { return second.id() && wait_reason(second.id()) == "blocking call (too many at once)"; }));
  second.cancel();
  EXPECT_THROW(second.get(), Canceled);
  EXPECT_FALSE(ran);
  out = true;
  first.get();
  rt.submit([] { blocking([] {}); }).get();  // its place was not lost
  rt.stop(1s);
}

// ---- G5: nothing is lost ---------------------------------------------------------------------------

TEST(ScopeWait, G5AnOperationThatHasHappenedKeepsItsResult) {
  each_run([] {
    // With one P the sender's wake-up and the cancel both come before the receiver runs.
    auto c = make_chan<int>();
    auto begun = make_chan<void>();
    Task<int> t = spawn([=] {
      begun.send();
      return c.recv_or(-1);
    });
    begun.recv();
    until_parked(t.id(), "chan receive");
    c.send(8);
    t.cancel();
    EXPECT_EQ(t.get(), 8);
  });
}

TEST(ScopeWait, G5NoValueIsLostUnderRandomCancels) {
  for (uint64_t seed = 1; seed <= per_schedule(scaled(6u, 2u), 1u); seed++)
    for (const Machine& m : kMachines)
      in_run({m.procs, seed + 10 * m.seed}, [&] {
        const int kRounds = per_schedule(scaled(150, 20), 5);
        std::mt19937_64 rng((seed + 10 * m.seed) * 1000 + static_cast<uint64_t>(m.procs));
        for (int round = 0; round < kRounds; round++) {
          auto c = make_chan<int>(static_cast<int>(rng() % 3));
          auto d = make_chan<int>(static_cast<int>(rng() % 2));
          std::atomic<int> sent{0}, unsent{0}, received{0};
          const int points = static_cast<int>(rng() % 200);
          const bool late = rng() % 2;
          scope([&](Scope& s) {
            for (int p = 0; p < 3; p++)
              s.spawn([&, p] {
                for (int i = 0;; i++) {
                  try {
                    switch ((i + p) % 4) {
                      case 0: c.send(i); break;
                      case 1:
                        if (!c.send_for(i, 1h)) {
                          unsent++;
                          throw Canceled();
                        }
                        break;
                      case 2: select(send(c, i), send(d, i)); break;
                      default:
                        if (c.send(background(), i)) {
                          unsent++;
                          throw Canceled();
                        }
                    }
                    sent++;
                  } catch (const Canceled&) {
                    return;
                  }
                }
              });
            for (int q = 0; q < 3; q++)
              s.spawn([&, q] {
                for (int i = q;; i++) {
                  switch (i % 4) {
                    case 0: c.recv(); break;
                    case 1:
                      if (!c.recv_for(1h)) throw Canceled();
                      break;
                    case 2: select(recv(c), recv(d)); break;
                    default:
                      if (!c.recv(background())) throw Canceled();
                  }
                  received++;
                }
              });
            for (int i = 0; i < points; i++) yield();
            if (late)
              while (received < 50) yield();
            s.cancel();
          });
          int left = 0;
          while (c.try_recv()) left++;
          while (d.try_recv()) left++;
          ASSERT_EQ(sent, received + left) << "round " << round;
        }
      });
}

TEST(ScopeWait, G5NoLockAndNoPermitIsLostUnderRandomCancels) {
  for (const Machine& m : kMachines)
    in_run(m, [&] {
      std::mt19937_64 rng(m.seed);
      Mutex mu;
      RwMutex rw;
      Semaphore sem{3};
      Cond cv;
      int inside = 0;
      for (int round = 0; round < per_schedule(scaled(150, 20), 10); round++) {
        const int points = static_cast<int>(rng() % 100);
        scope([&](Scope& s) {
          for (int i = 0; i < 6; i++)
            s.spawn([&, i] {
              for (int k = i;; k++) {
                switch (k % 5) {
                  case 0: {
                    std::lock_guard l{mu};
                    EXPECT_EQ(inside++, 0);
                    yield();
                    inside--;
                    break;
                  }
                  case 1: {
                    std::shared_lock l{rw};
                    yield();
                    break;
                  }
                  case 2: {
                    std::lock_guard l{rw};
                    yield();
                    break;
                  }
                  case 3:
                    sem.acquire(1 + k % 3);
                    yield();
                    sem.release(1 + k % 3);
                    break;
                  default: {
                    std::unique_lock l{mu};
                    EXPECT_EQ(inside, 0);
                    cv.wait_for(l, 1us);
                    EXPECT_EQ(inside, 0);
                    cv.notify_all();
                  }
                }
                throw_if_canceled();
              }
            });
          for (int i = 0; i < points; i++) yield();
          s.cancel();
        });
        ASSERT_TRUE(mu.try_lock());
        mu.unlock();
        ASSERT_TRUE(rw.try_lock());
        rw.unlock();
        ASSERT_TRUE(sem.try_acquire(3));
        sem.release(3);
      }
    });
}

TEST(ScopeWait, G5AFreedChannelIsNotTouched) {
  // The waker's frame holds the channel, and frees it as soon as it has sent.
  each_run([] {
    for (int i = 0; i < per_schedule(scaled(3000, 300), 30); i++) {
      auto at = make_chan<Chan<int>*>(1);
      Task<void> t = spawn([&] { (void)(*at.recv())->recv(); });
      {
        auto c = std::make_unique<Chan<int>>(make_chan<int>());
        at.send(c.get());
        while (!t.id()) yield();
        go([&] { t.cancel(); });
        select(send(*c, 1), ready(t));
      }
      t.wait();
      while (num_goroutines() > 1) yield();
    }
  });
}

}  // namespace
}  // namespace weft::test
