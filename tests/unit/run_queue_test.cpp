// The run queues of a P with one thread, and with thieves beside their owner. All interleavings of
// small ones: tests/model/run_queue_test.cpp.
#include <atomic>
#include <thread>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

constexpr std::uint32_t kStarts[] = {0, 1, UINT32_MAX - 2, UINT32_MAX - 300};

template <class Queue>
class AnyQueue : public testing::Test {};

using Queues = testing::Types<rt::RunQueue<int, 256>, rt::FreshQueue<int, 256>>;
TYPED_TEST_SUITE(AnyQueue, Queues);

TYPED_TEST(AnyQueue, IsEmptyAtFirst) {
  for (std::uint32_t start : kStarts) {
    TypeParam q(start);
    EXPECT_TRUE(q.empty());
    EXPECT_EQ(q.size(), 0u);
    EXPECT_EQ(q.pop(true), nullptr);
    EXPECT_EQ(q.pop(false), nullptr);
  }
}

TYPED_TEST(AnyQueue, RefusesWhatIsBeyondItsCapacity) {
  for (std::uint32_t start : kStarts) {
    TypeParam q(start);
    int item[257];
    for (int i = 0; i < 256; i++) ASSERT_TRUE(q.push(&item[i]));
    EXPECT_FALSE(q.push(&item[256]));
    EXPECT_EQ(q.size(), 256u);
    ASSERT_NE(q.pop(false), nullptr);
    EXPECT_TRUE(q.push(&item[256]));
  }
}

TYPED_TEST(AnyQueue, GivesItsOlderHalfAway) {
  for (std::uint32_t start : kStarts) {
    TypeParam q(start);
    int item[256];
    for (int& i : item) q.push(&i);
    int* half[128];
    ASSERT_EQ(q.take_half(half), 128u);
    for (int i = 0; i < 128; i++) EXPECT_EQ(half[i], &item[i]);
    EXPECT_EQ(q.size(), 128u);
  }
}

TEST(RunQueue, TakesTheOldestFirst) {
  for (std::uint32_t start : kStarts) {
    for (bool solo : {true, false}) {
      rt::RunQueue<int, 256> q(start);
      int item[1'000];
      int out = 0;
      for (int i = 0; i < 1'000; i++) {
        ASSERT_TRUE(q.push(&item[i]));
        if (i % 3 != 2) continue;
        for (int k = 0; k < 3; k++) ASSERT_EQ(q.pop(solo), &item[out++]);
      }
      ASSERT_EQ(q.pop(solo), &item[out]);
    }
  }
}

TEST(RunQueue, StealTakesHalfRoundedUp) {
  for (std::uint32_t start : kStarts) {
    for (std::uint32_t n = 0; n <= 256; n++) {
      rt::RunQueue<int, 256> q(start);
      int item[256];
      for (std::uint32_t i = 0; i < n; i++) q.push(&item[i]);
      int* got[128];
      const std::uint32_t took = q.steal(got);
      ASSERT_EQ(took, (n + 1) / 2);
      for (std::uint32_t i = 0; i < took; i++) ASSERT_EQ(got[i], &item[i]);
      ASSERT_EQ(q.size(), n - took);
    }
  }
}

TEST(FreshQueue, OwnerTakesTheNewestThievesTheOldest) {
  for (std::uint32_t start : kStarts) {
    for (bool solo : {true, false}) {
      rt::FreshQueue<int, 256> q(start);
      int item[4];
      for (int& i : item) q.push(&i);
      EXPECT_EQ(q.pop(solo), &item[3]);
      EXPECT_EQ(q.steal(), &item[0]);
      EXPECT_EQ(q.pop(solo), &item[2]);
      EXPECT_EQ(q.steal(), &item[1]);
      EXPECT_EQ(q.pop(solo), nullptr);
      EXPECT_EQ(q.steal(), nullptr);
      EXPECT_EQ(q.size(), 0u);
    }
  }
}

/// The owner pushes and pops, thieves take: each item exactly once.
template <class Queue, class Steal>
void each_item_once(Steal steal) {
  const int items = scaled(200'000, 20'000);
  Queue q(UINT32_MAX - 1'000);
  std::vector<int> item(items);
  std::vector<std::atomic<int>> taken(items);
  std::atomic<bool> done{false};
  const auto take = [&](int* p) { taken[p - item.data()].fetch_add(1); };
  std::vector<std::thread> thieves;
  for (int t = 0; t < 2; t++) {
    thieves.emplace_back([&] {
      while (!done.load()) steal(q, take);
    });
  }
  for (int i = 0; i < items; i++) {
    while (!q.push(&item[i]))
      if (int* p = q.pop(false)) take(p);
    if (i % 3 == 0)
      if (int* p = q.pop(false)) take(p);
  }
  while (int* p = q.pop(false)) take(p);
  done.store(true);
  for (std::thread& t : thieves) t.join();
  for (int i = 0; i < items; i++) ASSERT_EQ(taken[i].load(), 1) << "item " << i;
}

TEST(RunQueue, OwnerAndThievesTakeEachItemOnce) {
  each_item_once<rt::RunQueue<int, 256>>([](auto& q, auto& take) {
    int* got[128];
    const std::uint32_t n = q.steal(got);
    for (std::uint32_t i = 0; i < n; i++) take(got[i]);
  });
}

TEST(FreshQueue, OwnerAndThievesTakeEachItemOnce) {
  each_item_once<rt::FreshQueue<int, 256>>([](auto& q, auto& take) {
    if (int* p = q.steal()) take(p);
  });
}

}  // namespace
}  // namespace weft::test
