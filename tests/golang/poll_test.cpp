// Polls that the compiler inserts (-fsanitize-coverage=trace-pc): polled.cpp is built with the flags that the library exports,
// this file is not.
//
// What tells a loop that polls from one that loses its P by force: the one that polls is switched out, so on one P the goroutine
// that comes next runs on the same thread.
#include <signal.h>

#include <cerrno>
#include <cstdlib>
#include <deque>
#include <list>
#include <numeric>
#include <vector>

#include "tests/golang/polled.hpp"
#include "tests/support/child.hpp"
#include "tests/support/migrate.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

// A wish as sysmon states it.
void want_this_one() { rt::current_g()->preempt.store(1, std::memory_order_relaxed); }
bool wanted() { return rt::peek(rt::current_g()->preempt) != 0; }

/// Nobody loses its P between safepoints, so that what gives way did so at a poll.
struct SafepointsOnly {
  SafepointsOnly() { ::setenv("WEFT_DEBUG", "preemptoff", 1); }
  ~SafepointsOnly() { ::unsetenv("WEFT_DEBUG"); }
};

TEST(Poll, ASpinLoopWithoutACallIsSwitchedOut) {  // 47, 49 in flagged code
  SafepointsOnly only;
  in_run({1, 1}, [] {
    for (int round = 0; round < 3; round++) {
      std::atomic<bool> flag{false};
      pid_t other = 0;
      go([&] {
        other = thread_now();
        flag = true;
      });
      const pid_t mine = thread_now();
      polled::spin_until(flag);
      EXPECT_EQ(other, mine) << "it lost its P, but was not switched out";
    }
  });
}

TEST(Poll, ALoopWithoutAnEndIsSwitchedOutToo) {
  SafepointsOnly only;
  const Child c = child(
      [] {
        std::atomic<uint64_t> count{0};
        return run(
            [&] {
              go([&] { polled::spin_for_ever(count); });
              const pid_t mine = thread_now();
              while (count == 0) yield();
              // It spins on this thread from now on; a poll gives it back.
              return thread_now() == mine ? 7 : 8;
            },
            Machine{1, 1}.config());
      },
      {.limit = std::chrono::seconds(kTsan ? 60 : 20)});
  if (c.ran) {
    EXPECT_EQ(c.status, 7) << c.report();
  }
}

TEST(Poll, AWishIsAnsweredAtTheNextPoll) {
  each_run([] {
    want_this_one();
    EXPECT_EQ(polled::pass(3), 4u);
    EXPECT_FALSE(wanted());
  });
}

TEST(Poll, OnAPlainThreadNothingHappens) {
  EXPECT_EQ(polled::pass(1000), 1001u);
  in_run({2, 1}, [] {
    std::thread([] { EXPECT_EQ(polled::pass(1000), 1001u); }).join();
  });
}

TEST(Poll, InsideTheRuntimeTheWishStays) {
  each_run([] {
    {
      rt::Inside inside;
      want_this_one();
      EXPECT_EQ(polled::pass(3), 4u);
      EXPECT_TRUE(wanted()) << "switched out inside the runtime";
    }
    EXPECT_EQ(polled::pass(3), 4u);
    EXPECT_FALSE(wanted());
  });
}

TEST(Poll, InABlockingRegionTheWishStays) {
  each_run([] {
    blocking([] {
      want_this_one();
      EXPECT_EQ(polled::pass(3), 4u);
      EXPECT_TRUE(wanted());
    });
    {
      SyscallRegion r;
      want_this_one();
      EXPECT_EQ(polled::pass(3), 4u);
      EXPECT_TRUE(wanted());
    }
  });
}

TEST(Poll, OnTheSchedulersOwnStackTheWishStays) {
  in_run({1, 1}, [] {
    struct Probe : rt::TimerNode {
      std::atomic<int> answer{0};
    };
    static constexpr rt::TimerNode::Ops kOps{
        [](rt::TimerNode* t, uint64_t, int64_t) {
          rt::G* gp = rt::current_m()->curg;
          gp->preempt.store(1, std::memory_order_relaxed);
          const bool passed = polled::pass(3) == 4;
          const bool stays = rt::peek(gp->preempt) != 0;
          gp->preempt.store(0, std::memory_order_relaxed);
          static_cast<Probe*>(t)->answer = gp->system && passed && stays ? 1 : 2;
        },
        nullptr};
    Probe probe;
    probe.when = arch::clock_now() + 1'000'000;
    probe.ops = &kOps;
    {
      rt::Inside inside;
      rt::timer_arm(&probe);
    }
    eventually([&] { return probe.answer != 0; });
    EXPECT_EQ(probe.answer, 1);
  });
}

std::atomic<int> on_signal_stack{0};

TEST(Poll, OnAForeignStackTheWishStays) {
  struct sigaction ours{}, old{};
  ours.sa_handler = [](int) {
    want_this_one();
    const bool passed = polled::pass(3) == 4;
    on_signal_stack = passed && wanted() ? 1 : 2;
  };
  ours.sa_flags = SA_ONSTACK;
  ASSERT_EQ(::sigaction(SIGTRAP, &ours, &old), 0);
  each_run([] {
    on_signal_stack = 0;
    ::raise(SIGTRAP);
    EXPECT_EQ(on_signal_stack, 1);
    EXPECT_EQ(polled::pass(3), 4u);
    EXPECT_FALSE(wanted());
  });
  ::sigaction(SIGTRAP, &old, nullptr);
}

TEST(Poll, ErrnoIsKeptAlsoOnAnotherThread) {
  in_run({2, 1}, [] {
    const Traffic others(EDOM);
    bool moved = false;
    eventually([&] {
      const pid_t before = thread_now();
      *weft_errno() = EXDEV;
      want_this_one();
      (void)polled::pass(3);
      const int after = *weft_errno();
      EXPECT_EQ(after, EXDEV);
      moved = thread_now() != before;
      return moved || after != EXDEV;
    });
    EXPECT_TRUE(moved);
  });
}

// ---- for_each_chunk ------------------------------------------------------------------------------------------------

TEST(ForEachChunk, GivesEveryElementOnceInOrder) {
  for (const ptrdiff_t n : {-1, 0, 1, 3, 10, 11, 1000}) {
    std::vector<int> v(10), seen;
    std::iota(v.begin(), v.end(), 0);
    size_t parts = 0, longest = 0;
    for_each_chunk(v, n, [&](std::span<int> part) {
      parts++;
      longest = std::max(longest, part.size());
      seen.insert(seen.end(), part.begin(), part.end());
    });
    EXPECT_EQ(seen, v) << n;
    const size_t each = static_cast<size_t>(std::max<ptrdiff_t>(n, 1));
    EXPECT_EQ(parts, (v.size() + each - 1) / each) << n;
    EXPECT_EQ(longest, std::min(each, v.size())) << n;
  }
  for_each_chunk(std::vector<int>{}, 4, [](auto) { ADD_FAILURE() << "called for nothing"; });
}

TEST(ForEachChunk, TakesAnyRange) {
  const std::list<int> l{1, 2, 3, 4, 5};
  std::vector<int> sums;
  for_each_chunk(l, 2, [&](auto part) { sums.push_back(std::accumulate(part.begin(), part.end(), 0)); });
  EXPECT_EQ(sums, (std::vector<int>{3, 7, 5}));
  const std::deque<int> d{1, 2, 3, 4, 5};
  sums.clear();
  for_each_chunk(d, 3, [&](auto part) {
    sums.push_back(0);
    for (int i : part) sums.back() += i;
  });
  EXPECT_EQ(sums, (std::vector<int>{6, 9}));
  int raw[3] = {1, 2, 3};
  for_each_chunk(raw, 2, [](std::span<int> part) {
    for (int& i : part) i *= 2;
  });
  EXPECT_EQ(raw[2], 6);
}

TEST(ForEachChunk, HasASafepointAfterEachPart) {
  each_run([] {
    std::vector<int> v(64);
    int answered = 0;
    want_this_one();
    for_each_chunk(v, 8, [&](std::span<int>) {
      if (!wanted()) answered++;
      want_this_one();
    });
    EXPECT_EQ(answered, 7);
    EXPECT_FALSE(wanted());
  });
}

}  // namespace
}  // namespace weft::test
