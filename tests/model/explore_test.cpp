// The explorer itself: which outcomes of the usual litmus programs it finds, and which it must not.
#include "tests/model/mutants.hpp"

namespace weft::model {
namespace {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

/// Two cells, some threads, and an outcome that is asked for.
struct Litmus : Program {
  using Thread = std::function<void(Litmus&)>;
  Litmus(std::vector<Thread> threads, std::function<bool(Litmus&)> outcome)
      : threads_(std::move(threads)), outcome_(std::move(outcome)) {}
  void thread(int self) override { threads_[self](*this); }
  void after(bool stuck) override {
    check(!stuck, "stuck");
    check(!outcome_(*this), "the outcome is possible");
  }

  Atomic<int> x{0};
  Atomic<int> y{0};
  Plain<int> data;
  Lock a;
  Lock b;
  int r[4] = {};

 private:
  std::vector<Thread> threads_;
  std::function<bool(Litmus&)> outcome_;
};

bool possible(std::vector<Litmus::Thread> threads, std::function<bool(Litmus&)> outcome,
              int preemptions = -1) {
  const int n = static_cast<int>(threads.size());
  const Result r = explore(
      {"litmus", n, [&] { return std::make_unique<Litmus>(threads, outcome); }, preemptions});
  EXPECT_TRUE(r.complete);
  return r.violated;
}

Litmus::Thread store_then_load(bool first, std::memory_order store, std::memory_order load,
                               bool fence) {
  return [=](Litmus& l) {
    (first ? l.x : l.y).store(1, store);
    if (fence) publish_fence();
    l.r[first] = (first ? l.y : l.x).load(load);
  };
}

bool both_read_zero(Litmus& l) { return l.r[0] == 0 && l.r[1] == 0; }

TEST(Explorer, StoreBufferingNeedsSeqCstOrFences) {
  const auto sb = [](std::memory_order store, std::memory_order load, bool fence) {
    return possible(
        {store_then_load(true, store, load, fence), store_then_load(false, store, load, fence)},
        both_read_zero);
  };
  EXPECT_TRUE(sb(memory_order_release, memory_order_acquire, false));
  EXPECT_TRUE(sb(memory_order_seq_cst, memory_order_acquire, false));
  EXPECT_TRUE(sb(memory_order_release, memory_order_seq_cst, false));
  EXPECT_FALSE(sb(memory_order_seq_cst, memory_order_seq_cst, false));
  EXPECT_FALSE(sb(memory_order_relaxed, memory_order_relaxed, true));
}

TEST(Explorer, AFenceOnOneSideDoesNotDo) {
  EXPECT_TRUE(possible({store_then_load(true, memory_order_relaxed, memory_order_relaxed, true),
                        store_then_load(false, memory_order_relaxed, memory_order_relaxed, false)},
                       both_read_zero));
  // ... but with seq_cst accesses on the other side it does.
  EXPECT_FALSE(possible({store_then_load(true, memory_order_relaxed, memory_order_relaxed, true),
                         store_then_load(false, memory_order_seq_cst, memory_order_seq_cst, false)},
                        both_read_zero));
}

TEST(Explorer, MessagePassingNeedsReleaseAndAcquire) {
  const auto mp = [](std::memory_order store, std::memory_order load) {
    return possible({[=](Litmus& l) {
                       l.x.store(1, memory_order_relaxed);
                       l.y.store(1, store);
                     },
                     [=](Litmus& l) {
                       l.r[0] = l.y.load(load);
                       l.r[1] = l.x.load(memory_order_relaxed);
                     }},
                    [](Litmus& l) { return l.r[0] == 1 && l.r[1] == 0; });
  };
  EXPECT_FALSE(mp(memory_order_release, memory_order_acquire));
  EXPECT_TRUE(mp(memory_order_relaxed, memory_order_acquire));
  EXPECT_TRUE(mp(memory_order_release, memory_order_relaxed));
}

TEST(Explorer, AReadModifyWriteContinuesARelease) {
  const auto chain = [](bool rmw) {
    return possible({[](Litmus& l) {
                       l.data.set(1);
                       l.y.store(1, memory_order_release);
                     },
                     [=](Litmus& l) {
                       if (rmw)
                         l.y.fetch_add(1, memory_order_relaxed);
                       else if (l.y.load(memory_order_relaxed) == 1)
                         l.y.store(2, memory_order_relaxed);
                     },
                     [](Litmus& l) {
                       if (l.y.load(memory_order_acquire) == 2) l.data.get();
                     }},
                    [](Litmus&) { return false; });
  };
  EXPECT_FALSE(chain(true));
  EXPECT_TRUE(chain(false));
}

TEST(Explorer, ReadersAgreeOnOneCell) {
  EXPECT_FALSE(possible({[](Litmus& l) {
                           l.x.store(1, memory_order_relaxed);
                           l.x.store(2, memory_order_relaxed);
                         },
                         [](Litmus& l) {
                           l.r[0] = l.x.load(memory_order_relaxed);
                           l.r[1] = l.x.load(memory_order_relaxed);
                         }},
                        [](Litmus& l) { return l.r[0] > l.r[1]; }));
}

TEST(Explorer, ReadersOfTwoCellsMayDisagreeWithoutSeqCst) {
  const auto iriw = [](std::memory_order store, std::memory_order load) {
    return possible(
        {[=](Litmus& l) { l.x.store(1, store); }, [=](Litmus& l) { l.y.store(1, store); },
         [=](Litmus& l) {
           l.r[0] = l.x.load(load);
           l.r[1] = l.y.load(load);
         },
         [=](Litmus& l) {
           l.r[2] = l.y.load(load);
           l.r[3] = l.x.load(load);
         }},
        [](Litmus& l) { return l.r[0] && !l.r[1] && l.r[2] && !l.r[3]; });
  };
  EXPECT_TRUE(iriw(memory_order_release, memory_order_acquire));
  EXPECT_FALSE(iriw(memory_order_seq_cst, memory_order_seq_cst));
}

TEST(Explorer, NoUpdateIsLost) {
  const auto count = [](bool rmw) {
    const Litmus::Thread add = [=](Litmus& l) {
      if (rmw)
        l.x.fetch_add(1, memory_order_relaxed);
      else
        l.x.store(l.x.load(memory_order_relaxed) + 1, memory_order_relaxed);
    };
    return possible({add, add, add}, [](Litmus& l) { return l.x.final() != 3; });
  };
  EXPECT_FALSE(count(true));
  EXPECT_TRUE(count(false));
}

TEST(Explorer, FindsARaceAndItsAbsence) {
  const auto touch = [](bool locked) {
    const Litmus::Thread t = [=](Litmus& l) {
      if (locked) l.a.lock();
      l.data.set(l.data.get() + 1);
      if (locked) l.a.unlock();
    };
    return possible({t, t, t}, [](Litmus& l) { return l.data.get() != 3; });
  };
  EXPECT_TRUE(touch(false));
  EXPECT_FALSE(touch(true));
}

TEST(Explorer, FindsALockOrderThatDeadlocks) {
  const auto both = [](bool crossed) {
    const auto in_order = [](Lock Litmus::*one, Lock Litmus::*two) -> Litmus::Thread {
      return [=](Litmus& l) {
        (l.*one).lock();
        (l.*two).lock();
        (l.*two).unlock();
        (l.*one).unlock();
      };
    };
    return possible({in_order(&Litmus::a, &Litmus::b),
                     crossed ? in_order(&Litmus::b, &Litmus::a) : in_order(&Litmus::a, &Litmus::b)},
                    [](Litmus&) { return false; });
  };
  EXPECT_TRUE(both(true));
  EXPECT_FALSE(both(false));
}

TEST(Explorer, FindsASleepThatNobodyEnds) {
  const auto sleep = [](bool woken) {
    return possible({[](Litmus& l) { l.x.sleep_while(0, memory_order_acquire); },
                     [=](Litmus& l) {
                       if (woken) l.x.store(1, memory_order_release);
                     }},
                    [](Litmus&) { return false; });
  };
  EXPECT_TRUE(sleep(false));
  EXPECT_FALSE(sleep(true));
}

TEST(Explorer, BoundedAndFullSearchFindTheSameOutcomes) {
  for (int preemptions : {-1, 2}) {
    std::set<std::array<int, 2>> seen;
    possible(
        {store_then_load(true, memory_order_relaxed, memory_order_relaxed, false),
         store_then_load(false, memory_order_relaxed, memory_order_relaxed, false)},
        [&](Litmus& l) {
          seen.insert({l.r[0], l.r[1]});
          return false;
        },
        preemptions);
    EXPECT_EQ(seen.size(), 4u);
  }
}

TEST(Explorer, ALoopThatReadsStaleValuesEnds) {
  EXPECT_FALSE(possible({[](Litmus& l) { l.x.store(1, memory_order_relaxed); },
                         [](Litmus& l) {
                           if (l.r[0] == 0 && l.x.load(memory_order_relaxed) == 0) l.r[0] = 1;
                           for (int i = 0; i < 10; i++) l.x.load(memory_order_relaxed);
                         }},
                        [](Litmus&) { return false; }));
}

}  // namespace
}  // namespace weft::model
