// The API by example, "sync": each line as a user writes it, compiled without warnings, and run.
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>

#include <gtest/gtest.h>
#include <weft/weft.hpp>

using namespace std::chrono_literals;

namespace {

int loads = 0;
std::string load() {
  loads++;
  return "value";
}

TEST(Api, SyncLocks) {
  weft::run([] {
    weft::Mutex mu;
    {
      std::lock_guard l{mu};
      EXPECT_FALSE(mu.try_lock_for(1ms));
    }
    weft::RwMutex rw;
    {
      std::shared_lock reads{rw};
      std::shared_lock too{rw};
    }
    { std::unique_lock writes{rw}; }
    weft::Cond cv;
    bool ready = false;
    weft::go([&] {
      std::lock_guard l{mu};
      ready = true;
      cv.notify_one();
      cv.notify_all();
    });
    std::unique_lock u{mu};
    cv.wait(u, [&] { return ready; });
    auto [ctx, cancel] = weft::with_timeout(weft::background(), 1ms);
    auto pred = [&] { return !ready; };
    std::error_code e = cv.wait(u, ctx, pred);
    EXPECT_EQ(e, weft::Errc::deadline_exceeded);
    u.unlock();
    EXPECT_TRUE(weft::settle(1, 30s));
  });
}

TEST(Api, SyncOnceAndSemaphore) {
  weft::run([] {
    weft::Once once;
    once.call([] {});
    auto value = weft::once_value([] { return load(); });
    value();
    EXPECT_EQ(value(), "value");
    EXPECT_EQ(loads, 1);
    weft::Context ctx = weft::background();
    weft::Semaphore sem{10};
    sem.acquire(3);
    EXPECT_TRUE(sem.try_acquire(1));
    std::error_code e = sem.acquire(ctx, 3);
    EXPECT_FALSE(e);
    sem.release(3);
    sem.release(4);
    weft::Latch latch{1};
    latch.count_down();
    latch.wait();
    weft::Barrier barrier{1};
    barrier.arrive_and_wait();
  });
}

struct Buf {
  std::string bytes;
};

TEST(Api, SyncGroupsMapsAndPools) {
  weft::run([] {
    weft::Context ctx = weft::background();
    weft::ErrGroup g{ctx};
    g.set_limit(8);
    g.go([](weft::Context c) -> std::error_code { return c.err(); });
    g.go([] {});
    EXPECT_TRUE(g.try_go([](weft::Context) {}));
    EXPECT_FALSE(g.context().err());
    std::error_code first = g.wait();
    EXPECT_FALSE(first);

    weft::SyncMap<std::string, int> m;
    m.store("a", 1);
    EXPECT_EQ(m.load("a"), 1);
    EXPECT_TRUE(m.load_or_store("a", 2).loaded);
    EXPECT_TRUE(m.compare_and_swap("a", 1, 2));
    EXPECT_EQ(m.swap("a", 3), 2);
    EXPECT_FALSE(m.compare_and_delete("a", 2));
    m.range([](const std::string&, int v) { return v > 0; });
    EXPECT_EQ(m.load_and_delete("a"), 3);
    m.erase("a");
    m.clear();

    weft::Pool<Buf> pool{[] { return Buf{}; }};
    Buf b = pool.get();
    pool.put(std::move(b));
    weft::trim_pools();

    weft::Singleflight<std::string, int> flight;
    auto [value, shared] = flight.run("k", [] { return 7; });
    EXPECT_TRUE(value == 7 && !shared);
    flight.forget("k");
    EXPECT_EQ(flight.run_chan("k", [] { return 8; }).recv()->value, 8);
  });
}

}  // namespace
