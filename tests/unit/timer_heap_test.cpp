// The timer heap: order, removal from anywhere, what fires.
#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using rt::kNever;
using rt::timer_remove;
using rt::TimerHeap;
using rt::TimerNode;

/// A timer that notes when it fires.
struct Probe : TimerNode {
  static inline std::vector<Probe*> fired;
  static inline int forgotten = 0;

  explicit Probe(std::int64_t at = 0, std::uint64_t with = 0) {
    static constexpr Ops kOps{[](TimerNode* t, std::uint64_t ticket, std::int64_t now) {
                                auto* p = static_cast<Probe*>(t);
                                EXPECT_EQ(ticket, p->ticket);
                                EXPECT_LE(p->when, now);
                                fired.push_back(p);
                              },
                              nullptr, [](TimerNode*) { forgotten++; }};
    when = at;
    ticket = with;
    ops = &kOps;
  }
};

class TimerHeapTest : public testing::Test {
 protected:
  TimerHeapTest() { Probe::fired.clear(); }
  TimerHeap heap;
};

TEST_F(TimerHeapTest, IsIdleWithoutTimers) {
  EXPECT_TRUE(heap.idle());
  EXPECT_EQ(heap.earliest(), kNever);
  EXPECT_EQ(heap.size(), 0u);
  EXPECT_EQ(heap.expire(kNever - 1), 0u);
}

TEST_F(TimerHeapTest, FiresInOrderOfTime) {
  std::deque<Probe> t;
  for (int when : {50, 10, 40, 20, 30, 5, 45})
    t.emplace_back(when, static_cast<std::uint64_t>(when));
  for (Probe& p : t) heap.add(&p);
  EXPECT_EQ(heap.earliest(), 5);
  EXPECT_EQ(heap.expire(4), 0u);
  EXPECT_EQ(heap.expire(30), 4u);
  EXPECT_EQ(heap.earliest(), 40);
  EXPECT_EQ(heap.expire(1'000), 3u);
  ASSERT_EQ(Probe::fired.size(), t.size());
  EXPECT_TRUE(std::is_sorted(Probe::fired.begin(), Probe::fired.end(),
                             [](Probe* a, Probe* b) { return a->when < b->when; }));
  EXPECT_TRUE(heap.idle());
}

TEST_F(TimerHeapTest, EqualTimesFireAsTheyWereArmed) {
  std::deque<Probe> t;
  for (int i = 0; i < 100; i++) t.emplace_back(7);
  for (Probe& p : t) heap.add(&p);
  EXPECT_EQ(heap.expire(7), 100u);
  for (std::size_t i = 0; i < t.size(); i++) ASSERT_EQ(Probe::fired[i], &t[i]);
}

TEST_F(TimerHeapTest, AddTellsWhetherItIsTheEarliest) {
  Probe a(20), b(10), c(10), d(30);
  EXPECT_TRUE(heap.add(&a));
  EXPECT_TRUE(heap.add(&b));
  EXPECT_FALSE(heap.add(&c));
  EXPECT_FALSE(heap.add(&d));
  heap.forget_all();
}

TEST_F(TimerHeapTest, RemovesFromTheMiddle) {
  std::deque<Probe> t;
  for (int i = 0; i < 50; i++) t.emplace_back((i * 37) % 50);
  for (Probe& p : t) heap.add(&p);
  std::vector<std::int64_t> left;
  for (std::size_t i = 0; i < t.size(); i++) {
    if (i % 3 == 0) {
      EXPECT_TRUE(timer_remove(&t[i]));
      EXPECT_FALSE(timer_remove(&t[i])) << "it is disarmed already";
    } else {
      left.push_back(t[i].when);
    }
  }
  std::sort(left.begin(), left.end());
  EXPECT_EQ(heap.earliest(), left[0]);
  EXPECT_EQ(heap.expire(1'000), left.size());
  for (std::size_t i = 0; i < left.size(); i++) EXPECT_EQ(Probe::fired[i]->when, left[i]);
}

TEST_F(TimerHeapTest, RemoveIsFalseOnceItHasFired) {
  Probe p(1);
  heap.add(&p);
  heap.expire(1);
  EXPECT_FALSE(timer_remove(&p));
}

TEST_F(TimerHeapTest, FiredTimerMayBeArmedAnew) {
  struct Again : Probe {
    TimerHeap* heap;
  };
  static int times;
  times = 0;
  static constexpr TimerNode::Ops kAgain{[](TimerNode* t, std::uint64_t, std::int64_t now) {
                                           auto* a = static_cast<Again*>(t);
                                           if (++times < 3) {
                                             a->when = now + 10;
                                             a->heap->add(a);
                                           }
                                         },
                                         nullptr, nullptr};
  Again a;
  a.heap = &heap;
  a.when = 10;
  a.ops = &kAgain;
  heap.add(&a);
  EXPECT_EQ(heap.expire(10), 1u);
  EXPECT_EQ(heap.expire(19), 0u);
  EXPECT_EQ(heap.expire(20), 1u);
  EXPECT_EQ(heap.expire(30), 1u);
  EXPECT_EQ(times, 3);
  EXPECT_TRUE(heap.idle());
}

TEST_F(TimerHeapTest, ClaimThatRefusesKeepsATimerFromFiring) {
  static std::vector<TimerNode*> claimed;
  static std::vector<TimerNode*> fired;
  claimed.clear();
  fired.clear();
  static constexpr TimerNode::Ops kOps{
      [](TimerNode* t, std::uint64_t, std::int64_t) { fired.push_back(t); },
      [](TimerNode* t) {
        claimed.push_back(t);
        EXPECT_NE(rt::peek(t->heap), nullptr) << "claim comes before the node is disarmed";
        return t->ticket == 1;
      },
      nullptr};
  TimerNode alive, dying;
  alive.when = dying.when = 5;
  alive.ops = dying.ops = &kOps;
  alive.ticket = 1;
  heap.add(&dying);
  heap.add(&alive);
  heap.expire(5);
  EXPECT_EQ(claimed, (std::vector<TimerNode*>{&dying, &alive}));
  EXPECT_EQ(fired, (std::vector<TimerNode*>{&alive}));
  EXPECT_EQ(rt::peek(dying.heap), nullptr);
  EXPECT_TRUE(heap.idle());
}

TEST_F(TimerHeapTest, DrainsToAnother) {
  TimerHeap other;
  std::deque<Probe> t;
  for (int i = 0; i < 20; i++) t.emplace_back(20 - i);
  for (Probe& p : t) heap.add(&p);
  heap.drain_to(other);
  EXPECT_TRUE(heap.idle());
  EXPECT_EQ(heap.size(), 0u);
  EXPECT_EQ(other.size(), t.size());
  EXPECT_TRUE(timer_remove(&t[3]));
  EXPECT_EQ(other.expire(100), t.size() - 1);
}

TEST_F(TimerHeapTest, ForgetsAllWithoutFiring) {
  Probe::forgotten = 0;
  std::deque<Probe> t;
  for (int i = 0; i < 5; i++) t.emplace_back(1);
  for (Probe& p : t) heap.add(&p);
  heap.forget_all();
  EXPECT_EQ(Probe::forgotten, 5);
  EXPECT_TRUE(heap.idle());
  EXPECT_TRUE(Probe::fired.empty());
  for (Probe& p : t) EXPECT_FALSE(timer_remove(&p));
}

TEST_F(TimerHeapTest, AgreesWithAMultimapOverRandomOperations) {
  std::mt19937_64 random(11);
  std::vector<Probe> t(500);
  std::multimap<std::int64_t, Probe*> model;  // equal keys stay in the order of insertion
  std::vector<std::multimap<std::int64_t, Probe*>::iterator> at(t.size(), model.end());
  std::int64_t now = 0;
  for (int i = 0; i < 10'000; i++) {
    const std::size_t k = random() % t.size();
    switch (random() % 8) {
      default:
        if (at[k] != model.end()) break;
        t[k].when = now + static_cast<std::int64_t>(random() % 200);
        t[k].ticket = random();
        heap.add(&t[k]);
        at[k] = model.emplace(t[k].when, &t[k]);
        break;
      case 5:
      case 6:
        ASSERT_EQ(timer_remove(&t[k]), at[k] != model.end());
        if (at[k] != model.end()) model.erase(at[k]);
        at[k] = model.end();
        break;
      case 7: {
        now += static_cast<std::int64_t>(random() % 20);
        Probe::fired.clear();
        heap.expire(now);
        std::vector<Probe*> due;
        while (!model.empty() && model.begin()->first <= now) {
          due.push_back(model.begin()->second);
          at[static_cast<std::size_t>(due.back() - t.data())] = model.end();
          model.erase(model.begin());
        }
        ASSERT_EQ(Probe::fired, due) << "operation " << i;
      }
    }
    ASSERT_EQ(heap.size(), model.size());
    ASSERT_EQ(heap.earliest(), model.empty() ? kNever : model.begin()->first);
  }
  heap.forget_all();
}

}  // namespace
}  // namespace weft::test
