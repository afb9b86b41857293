// The win word and the queue of waiters, one thread at a time. All interleavings:
// tests/model/waiter_test.cpp.
#include <thread>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using rt::Outcome;
using rt::Waiter;
using rt::WaitNode;
using rt::WaitQueue;

constexpr Outcome kEnds[] = {Outcome::Wake, Outcome::Timeout, Outcome::Cancel, Outcome::Close,
                             Outcome::Stop};

TEST(Waiter, FirstContenderWins) {
  for (Outcome first : kEnds) {
    for (Outcome second : kEnds) {
      Waiter w;
      const std::uint64_t ticket = w.begin();
      EXPECT_EQ(w.outcome(), Outcome::Pending);
      EXPECT_TRUE(w.try_win(ticket, first));
      EXPECT_FALSE(w.try_win(ticket, second));
      EXPECT_EQ(w.outcome(), first);
    }
  }
}

TEST(Waiter, LateContenderHoldsAnOldTicket) {
  Waiter w;
  const std::uint64_t old = w.begin();
  ASSERT_TRUE(w.try_win(old, Outcome::Wake));
  const std::uint64_t now = w.begin();
  EXPECT_NE(old, now);
  EXPECT_FALSE(w.try_win(old, Outcome::Timeout));
  EXPECT_EQ(w.outcome(), Outcome::Pending);
  EXPECT_TRUE(w.try_win(now, Outcome::Cancel));
}

TEST(Waiter, ExclusiveWaitIsSetWithoutContest) {
  Waiter w;
  const std::uint64_t ticket = w.begin();
  w.set(ticket, Outcome::Close);
  EXPECT_EQ(w.outcome(), Outcome::Close);
  EXPECT_FALSE(w.try_win(ticket, Outcome::Timeout));
}

TEST(Waiter, OneOfManyThreadsWins) {
  for (int round = 0; round < scaled(500, 50); round++) {
    Waiter w;
    const std::uint64_t ticket = w.begin();
    std::atomic<int> winners{0};
    std::vector<std::thread> all;
    for (Outcome how : kEnds)
      all.emplace_back([&w, &winners, ticket, how] { winners += w.try_win(ticket, how); });
    for (std::thread& t : all) t.join();
    ASSERT_EQ(winners.load(), 1);
  }
}

/// Waiters in one queue.
class WaitQueueTest : public testing::Test {
 protected:
  static constexpr int kWaiters = 5;

  WaitQueueTest() {
    for (int i = 0; i < kWaiters; i++) {
      node[i].waiter = &waiter[i];
      node[i].ticket = waiter[i].begin();
      node[i].index = static_cast<std::uint32_t>(i);
      queue.push(&node[i], &lock);
    }
  }

  rt::SpinLock lock;
  WaitQueue queue;
  Waiter waiter[kWaiters];
  WaitNode node[kWaiters];
};

TEST_F(WaitQueueTest, IsFirstInFirstOut) {
  for (WaitNode& n : node) {
    EXPECT_EQ(queue.pop_winner(Outcome::Wake), &n);
    EXPECT_EQ(n.waiter->outcome(), Outcome::Wake);
    EXPECT_EQ(n.queue, nullptr);
  }
  EXPECT_EQ(queue.pop_winner(Outcome::Wake), nullptr);
  EXPECT_TRUE(queue.empty());
}

TEST_F(WaitQueueTest, RemovesFromAnywhere) {
  for (int i : {2, 0, 4}) {
    queue.remove(&node[i]);
    EXPECT_EQ(node[i].queue, nullptr);
  }
  EXPECT_EQ(queue.pop_winner(Outcome::Close), &node[1]);
  EXPECT_EQ(queue.pop_winner(Outcome::Close), &node[3]);
  EXPECT_EQ(queue.pop_winner(Outcome::Close), nullptr);
  queue.push(&node[0], &lock);
  EXPECT_EQ(queue.last, &node[0]);
}

TEST_F(WaitQueueTest, SkipsThoseWhoseWaitHasEnded) {
  for (int i : {0, 1, 3}) {
    node[i].racy = true;
    ASSERT_TRUE(waiter[i].try_win(node[i].ticket, Outcome::Timeout));
  }
  EXPECT_EQ(queue.pop_winner(Outcome::Wake), &node[2]);
  EXPECT_EQ(queue.pop_winner(Outcome::Wake), &node[4]);
  EXPECT_EQ(queue.pop_winner(Outcome::Wake), nullptr);
  EXPECT_EQ(waiter[0].outcome(), Outcome::Timeout);
}

TEST_F(WaitQueueTest, TellsARacyWaiterWhichNodeFired) {
  node[0].racy = true;
  node[0].index = 7;
  EXPECT_EQ(waiter[0].fired, Waiter::kNone);
  ASSERT_EQ(queue.pop_winner(Outcome::Wake), &node[0]);
  EXPECT_EQ(waiter[0].fired, 7u);
}

TEST(Waiter, NoteKeepsAWakeUpThatComesFirst) {
  Waiter w;
  w.note.clear();
  w.note.wake();
  w.note.sleep();
  w.note.clear();
  EXPECT_FALSE(w.note.sleep_until(arch::clock_now() + 1'000'000));
  w.note.wake();
  EXPECT_TRUE(w.note.sleep_until(0));
}

}  // namespace
}  // namespace weft::test
