// Pool: what it gives, to whom and in which order, and when it lets go.
#include <sched.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

bool several_cpus() {
  cpu_set_t set;
  return ::sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 1;
}

/// The turns run one after the other, the even ones on one P and the odd ones on another. For a run with two.
void on_two_ps(const std::vector<std::function<void()>>& turns) {
  constexpr size_t kNobody = ~size_t{0};
  std::atomic<size_t> turn{kNobody};
  std::atomic<bool> there{false};
  auto play = [&](size_t first) {
    for (size_t i = first; i < turns.size(); i += 2) {
      while (turn != i) {
      }
      turns[i]();
      turn = i + 1;
    }
  };
  WaitGroup wg;
  wg.go([&] {
    NoPreempt keep;  // and it spins: whoever else runs now is on the other P
    there = true;
    play(1);
  });
  while (!there) yield();
  {
    NoPreempt keep;
    turn = 0;
    play(0);
    while (turn != turns.size()) {
    }
  }
  wg.wait();
}

TEST(Pool, GivesBackWhatWasPut) {  // 127
  in_run({1, 1}, [] {
    Pool<std::string> pool;
    EXPECT_EQ(pool.get(), "");
    pool.put("a");
    pool.put("b");
    EXPECT_EQ(pool.get(), "a") << "the P's own first";
    EXPECT_EQ(pool.get(), "b");
    EXPECT_EQ(pool.get(), "");
    pool.put("c");
    pool.put("d");
    pool.put("e");
    trim_pools();
    std::vector<std::string> got{pool.get(), pool.get()};
    for (const std::string& s : got) EXPECT_NE(s, "") << "it survives one trim";
    trim_pools();
    EXPECT_EQ(pool.get(), "") << "and not two";
  });
}

TEST(Pool, MakesNewOnesAndDestroysWhatItHolds) {  // 127
  each_run([] {
    auto held = std::make_shared<int>(0);
    {
      int made = 0;
      Pool<std::shared_ptr<int>> pool{[&] {
        made++;
        return held;
      }};
      auto a = pool.get(), b = pool.get();
      EXPECT_EQ(made, 2);
      for (int i = 0; i < 10; i++) pool.put(held);
      a = b = nullptr;
      EXPECT_EQ(held.use_count(), 11);
      trim_pools();
      EXPECT_EQ(held.use_count(), 11);
      pool.put(held);
      trim_pools();
      EXPECT_EQ(held.use_count(), 2);
      (void)pool.get();
      EXPECT_EQ(held.use_count(), 1);
      pool.put(held);
      pool.put(held);
    }
    EXPECT_EQ(held.use_count(), 1);
    Pool<std::unique_ptr<int>> moves{[] { return std::make_unique<int>(3); }};
    moves.put(moves.get());
    EXPECT_EQ(*moves.get(), 3);
  });
}

// Every thing is in one hand at a time, and none is lost: as many as were put are there at the end.
TEST(Pool, NothingIsLostOrDoubled) {  // 127
  each_run([] {
    constexpr int kThings = 50;
    Pool<int> pool{[] { return -1; }};
    std::vector<std::atomic<int>> hands(kThings);
    for (int i = 0; i < kThings; i++) pool.put(i);
    WaitGroup wg;
    for (int g = 0; g < 8; g++)
      wg.go([&, g] {
        for (int i = 0; i < scaled(2000, 200); i++) {
          const int thing = pool.get();
          if (thing < 0) continue;
          EXPECT_EQ(hands[static_cast<size_t>(thing)].fetch_add(1), 0);
          if ((i + g) % 5 == 0) yield();
          hands[static_cast<size_t>(thing)]--;
          pool.put(thing);
        }
      });
    std::thread outside([&] {
      for (int i = 0; i < 200; i++) {
        const int thing = pool.get();
        if (thing >= 0) pool.put(thing);
      }
    });
    wg.wait();
    outside.join();
    trim_pools();  // what a P has to itself nobody else takes, until then
    std::vector<bool> there(kThings);
    for (int thing; (thing = pool.get()) >= 0;) {
      EXPECT_FALSE(there[static_cast<size_t>(thing)]);
      there[static_cast<size_t>(thing)] = true;
    }
    EXPECT_EQ(std::count(there.begin(), there.end(), true), kThings);
  });
}

TEST(Pool, TrimWhileInUse) {  // 127
  each_run([] {
    auto held = std::make_shared<int>(0);
    {
      Pool<std::shared_ptr<int>> pool{[&] { return held; }};
      WaitGroup wg;
      for (int g = 0; g < 4; g++)
        wg.go([&, g] {
          for (int i = 0; i < scaled(1000, 100); i++) {
            pool.put(pool.get());
            if ((i + g) % 16 == 0) trim_pools();
            if (i % 8 == 0) yield();
          }
        });
      wg.wait();
    }
    EXPECT_EQ(held.use_count(), 1);
  });
}

// As Go's TestPoolNew.
TEST(Pool, AsksForANewOneOnlyWhenItHasNone) {  // 127
  in_run({1, 1}, [] {
    int i = 0;
    Pool<int> pool{[&] { return ++i; }};
    EXPECT_EQ(pool.get(), 1);
    EXPECT_EQ(pool.get(), 2);
    pool.put(42);
    EXPECT_EQ(pool.get(), 42);
    EXPECT_EQ(pool.get(), 3);
  });
}

// As the second half of Go's TestPool: more than a P keeps to itself.
TEST(Pool, AllOfManySurviveOneTrimAndNoneTwo) {  // 127
  each_run([] {
    constexpr int kMany = 100;
    Pool<int> pool;
    auto there = [&] {
      int n = 0;
      while (pool.get() == 7) n++;
      return n;
    };
    for (int i = 0; i < kMany; i++) pool.put(7);
    trim_pools();
    EXPECT_EQ(there(), kMany);
    for (int i = 0; i < kMany; i++) pool.put(7);
    trim_pools();
    pool.put(7);  // younger by a trim
    trim_pools();
    EXPECT_EQ(there(), 1);
  });
}

// As Go's TestPoolGC and TestPoolRelease: what is in it when the second trim comes is destroyed, whether others were taken or not.
TEST(Pool, ReleasesWhatNobodyTakes) {  // 127
  for (bool drain : {false, true})
    each_run([&] {
      constexpr int kMany = 100;
      Pool<std::shared_ptr<int>> pool{[] { return nullptr; }};
      for (int round = 0; round < 3; round++) {
        auto held = std::make_shared<int>(0);
        for (int i = 0; i < kMany; i++) pool.put(held);
        EXPECT_EQ(held.use_count(), 1 + kMany);
        if (drain)
          for (int i = 0; i < kMany; i++) (void)pool.get();
        for (int i = 0; i < 2; i++) trim_pools();
        EXPECT_EQ(held.use_count(), 1);
      }
    });
}

TEST(Pool, WhatAPKeepsToItselfNobodyElseTakes) {  // 127: private first, per P
  if (!several_cpus()) GTEST_SKIP() << "one slot for all";
  in_run({2, 1}, [] {
    Pool<std::string> pool{[] { return std::string("new"); }};
    std::string a, b, c, d;
    on_two_ps({
        [&] { pool.put("own"); },
        [&] { a = pool.get(); },
        [&] { b = pool.get(); },
        [&] { pool.put("theirs"); },
        [&] { c = pool.get(); },
        [&] { d = pool.get(); },
    });
    EXPECT_EQ(a, "new");
    EXPECT_EQ(b, "own");
    EXPECT_EQ(c, "new");
    EXPECT_EQ(d, "theirs");
  });
}

// Go's poolDequeue and poolChain: the owner's end is a stack, the others' a queue. However long it is.
TEST(Pool, ItsOwnerTakesTheNewestAndOthersTheOldest) {  // 127: deque, chain
  if (!several_cpus()) GTEST_SKIP() << "one slot for all";
  in_run({2, 1}, [] {
    constexpr int kMany = 5000;
    Pool<int> pool{[] { return -1; }};
    std::vector<int> mine, theirs;
    on_two_ps({
        [&] {
          for (int i = 0; i < kMany; i++) pool.put(i);
        },
        [&] {
          for (int i = 0; i < kMany / 2; i++) theirs.push_back(pool.get());
        },
        [&] {
          for (int n; (n = pool.get()) >= 0;) mine.push_back(n);
        },
        [&] { theirs.push_back(pool.get()); },
    });
    ASSERT_EQ(theirs.size(), static_cast<size_t>(kMany / 2 + 1));
    ASSERT_EQ(mine.size(), static_cast<size_t>(kMany / 2));
    for (int i = 0; i < kMany / 2; i++) EXPECT_EQ(theirs[static_cast<size_t>(i)], i + 1) << "the first put is the owner's";
    EXPECT_EQ(theirs.back(), -1);
    EXPECT_EQ(mine[0], 0);
    for (int i = 1; i < kMany / 2; i++) EXPECT_EQ(mine[static_cast<size_t>(i)], kMany - i);
  });
}

// As Go's TestPoolDequeue and TestPoolChain: one puts and now and then takes, nine take.
TEST(Pool, OneProducerAndManyConsumersLoseAndDoubleNothing) {  // 127: deque, chain
  each_run([] {
    constexpr int kMany = scaled(200'000, 10'000);
    constexpr int kConsumers = 9;
    Pool<int> pool{[] { return -1; }};
    std::vector<std::atomic<int>> seen(kMany);
    std::atomic<bool> all{false};
    std::atomic<int> taken{0};
    auto take = [&] {
      const int n = pool.get();
      if (n < 0) return false;
      seen[static_cast<size_t>(n)]++;
      taken++;
      return true;
    };
    int by_producer = 0;
    WaitGroup wg;
    for (int c = 0; c < kConsumers; c++)
      wg.go([&] {
        while (!all)
          if (!take()) yield();
      });
    wg.go([&] {
      for (int i = 0; i < kMany; i++) {
        pool.put(i);
        if (i % 10 == 0) by_producer += take();
        if (i % 64 == 0) yield();
      }
      all = true;
    });
    wg.wait();
    EXPECT_GT(by_producer, 0);
    EXPECT_GT(taken, by_producer);
    trim_pools();  // what a P has to itself nobody else takes, until then
    while (take()) {
    }
    EXPECT_EQ(taken, kMany);
    EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](const std::atomic<int>& n) { return n == 1; }));
  });
}

// As Go's TestPoolStress.
TEST(Pool, GivesOnlyWhatWasPutUnderStress) {  // 127
  each_run([] {
    Pool<int> pool{[] { return 0; }};
    WaitGroup wg;
    for (int g = 0; g < 10; g++)
      wg.go([&] {
        int v = 0;
        for (int i = 0; i < scaled(50'000, 2'000); i++) {
          pool.put(v);
          v = pool.get();
          if (v != 0) ADD_FAILURE() << v << " was never put";
        }
      });
    wg.wait();
  });
}

}  // namespace
}  // namespace weft::test
