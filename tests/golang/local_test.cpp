// Goroutine-local values and inherited labels.
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/internals.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

GLocal<int> plain;
GLocal<std::string, Inherit::Copy> copied;
GLocal<int, Inherit::Share> shared;

TEST(GLocal, IsTheGoroutinesOwn) {
  each_run([] {
    EXPECT_EQ(plain.get(), nullptr);
    *plain = 1;
    WaitGroup wg;
    for (int i = 2; i < 50; i++)
      wg.go([i] {
        EXPECT_EQ(plain.get(), nullptr);
        *plain = i;
        for (int k = 0; k < 20; k++) {
          yield();
          EXPECT_EQ(*plain, i);
        }
      });
    wg.wait();
    EXPECT_EQ(*plain, 1);
    plain.reset();
    EXPECT_EQ(plain.get(), nullptr);
  });
}

TEST(GLocal, IsInheritedAsItSays) {
  each_run([] {
    *plain = 1;
    *copied = "parent";
    *shared = 1;
    WaitGroup wg;
    wg.go([] {
      EXPECT_EQ(plain.get(), nullptr);
      EXPECT_EQ(*copied, "parent");
      *copied = "child";
      *shared = 2;
      WaitGroup inner;
      inner.go([] {
        EXPECT_EQ(*copied, "child");
        EXPECT_EQ(*shared, 2);
        shared.set(3);  // its own from here on
      });
      inner.wait();
      EXPECT_EQ(*shared, 2);
    });
    wg.wait();
    EXPECT_EQ(*copied, "parent");
    EXPECT_EQ(*shared, 2);
  });
}

struct Counted {
  static int alive;
  int n = 0;
  Counted() { alive++; }
  Counted(const Counted& o) : n(o.n) {
    if (n == 13) throw std::runtime_error("not to be copied");
    alive++;
  }
  ~Counted() {
    yield();  // may park
    alive--;
  }
};
int Counted::alive = 0;
GLocal<Counted, Inherit::Copy> counted;

TEST(GLocal, ValuesEndWithTheirGoroutineAlsoByGoexit) {
  in_run({.procs = 1, .seed = 1}, [] {
    WaitGroup wg;
    for (int i = 0; i < 30; i++)
      wg.go([i] {
        counted->n = i;
        if (i % 2) goexit();
      });
    wg.wait();
    EXPECT_TRUE(settle(1, 10s));
    EXPECT_EQ(Counted::alive, 0);
  });
}

TEST(GLocal, AreDestroyedNewestFirst) {
  in_run({.procs = 1, .seed = 1}, [] {
    static std::vector<int> order;
    struct Noted {
      int n = 0;
      ~Noted() { order.push_back(n); }
    };
    static GLocal<Noted> a, b;
    WaitGroup wg;
    wg.go([] {
      a->n = 1;
      b->n = 2;
    });
    wg.wait();
    EXPECT_TRUE(settle(1, 10s));
    EXPECT_EQ(order, (std::vector<int>{2, 1}));
  });
}

TEST(GLocal, ACopyThatThrowsPassesOutOfGo) {
  in_run({.procs = 1, .seed = 1}, [] {
    const int before = num_goroutines();
    counted->n = 13;
    EXPECT_THROW(go([] { ADD_FAILURE(); }), std::runtime_error);
    EXPECT_EQ(num_goroutines(), before);
    counted.reset();
    EXPECT_EQ(Counted::alive, 0);
  });
}

TEST(GLocal, WhatNeverRanIsDestroyedToo) {
  auto alive = std::make_shared<int>();
  static GLocal<std::shared_ptr<int>, Inherit::Copy> held;
  in_run({.procs = 1, .seed = 1}, [&] {
    *held = alive;
    for (int i = 0; i < 10; i++) go([] {});
  });
  EXPECT_EQ(alive.use_count(), 1);
}

TEST(GLocal, APlainThreadHasItsOwn) {
  auto alive = std::make_shared<int>();
  static GLocal<std::shared_ptr<int>> held;
  std::thread([&] {
    *held = alive;
    EXPECT_EQ(alive.use_count(), 2);
  }).join();
  EXPECT_EQ(alive.use_count(), 1);
  EXPECT_EQ(held.get(), nullptr);
}

TEST(GLocal, MakesItsValueAsToldTo) {
  each_run([] {
    GLocal<int> seven([] { return 7; });
    EXPECT_EQ(seven.get(), nullptr);
    EXPECT_EQ(*seven, 7);
    EXPECT_EQ(seven.set(8), 8);
    EXPECT_EQ(*seven, 8);
  });
}

std::vector<std::pair<std::string, std::string>> own_labels() {
  const rt::G* gp = rt::current_g();
  return gp->extra ? gp->extra->spawn.labels : std::vector<std::pair<std::string, std::string>>{};
}

TEST(Labels, AreInheritedAndOverridden) {  // 180
  each_run([] {
    using L = std::vector<std::pair<std::string, std::string>>;
    Chan<L> seen = make_chan<L>();
    go({.labels = {{"conn", "7"}, {"user", "ada"}}}, [seen] {
      go([seen] {
        go({.name = "named", .labels = {{"user", "bob"}}}, [seen] { seen.send(own_labels()); });
      });
    });
    EXPECT_EQ(*seen.recv(), (L{{"user", "bob"}, {"conn", "7"}}));
    go([seen] { seen.send(own_labels()); });
    EXPECT_EQ(*seen.recv(), L{});
  });
}

}  // namespace
}  // namespace weft::test
