// select: one case runs, the losers leave, default only when nothing can go on, choice without
// favour.
#include <array>
#include <cmath>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

// c1 is ready, then c2 too, and only then c1 is drained: at no instant can nothing be received.
void one_of_two_is_always_ready(bool close_second) {
  constexpr int kRounds = scaled(10000, 1500);
  for (int i = 0; i < kRounds; i++) {
    Chan<int> c1 = make_chan<int>(1);
    Chan<int> c2 = make_chan<int>(1);
    Chan<bool> found = make_chan<bool>(1);
    c1.send(1);
    go([=] { found.send(select(recv(c1), recv(c2), otherwise()) != 2); });
    if (close_second)
      c2.close();
    else
      c2.send(1);
    select(recv(c1), otherwise());
    ASSERT_TRUE(found.recv_or()) << "default ran although a case was ready, round " << i;
  }
}

TEST(Select, NeverTakesDefaultWhileOneOfTwoIsReady) {  // 16
  each_run([] { one_of_two_is_always_ready(false); });
}

TEST(Select, NeverTakesDefaultWhileOneOfTwoIsReadyByClose) {  // 17
  each_run([] { one_of_two_is_always_ready(true); });
}

TEST(Select, TwoGoroutinesSendAndReceiveOnOneChan) {  // 18
  each_run([] {
    constexpr int kRounds = scaled(1000, 300);
    for (int cap : {0, 10}) {
      Chan<int> c = make_chan<int>(cap);
      WaitGroup wg;
      for (int p = 0; p < 2; p++)
        wg.go([=] {
          for (int i = 0; i < kRounds; i++) {
            int v = -1;
            bool received;
            if (p == 0 || i % 2 == 0)
              received = select(send(c, p), recv(c, v)) == 1;
            else
              received = select(recv(c, v), send(c, p)) == 0;
            if (received) {
              ASSERT_TRUE(v == 0 || v == 1);
              ASSERT_TRUE(cap != 0 || v != p) << "a goroutine received from itself";
            }
          }
        });
      wg.wait();
    }
  });
}

TEST(Select, TenGoroutinesOnFourChansKeepExactTotals) {  // 19
  each_run([] {
    constexpr int kEach = scaled(50000, 2000);
    const std::array<Chan<int>, 4> c{make_chan<int>(), make_chan<int>(), make_chan<int>(2),
                                     make_chan<int>(3)};
    std::array<std::atomic<int>, 4> received{};
    WaitGroup wg;
    for (size_t k = 0; k < 4; k++) {
      wg.go([&, k] {
        for (int i = 0; i < kEach; i++) c[k].send(0);
      });
      wg.go([&, k] {
        for (int i = 0; i < kEach; i++) {
          (void)c[k].recv();
          received[k]++;
        }
      });
    }
    wg.go([&] {
      std::array<Chan<int>, 4> live = c;
      std::array<int, 4> n{};
      for (int i = 0; i < 4 * kEach; i++) {
        const int k =
            select(send(live[3], 0), send(live[2], 0), send(live[0], 0), send(live[1], 0));
        const size_t at = std::array<size_t, 4>{3, 2, 0, 1}[static_cast<size_t>(k)];
        if (++n[at] == kEach) live[at] = nullptr;
      }
      EXPECT_EQ(n, (std::array<int, 4>{kEach, kEach, kEach, kEach}));
    });
    wg.go([&] {
      std::array<Chan<int>, 4> live = c;
      std::array<int, 4> n{};
      for (int i = 0; i < 4 * kEach; i++) {
        const int k = select(recv(live[0]), recv(live[1]), recv(live[2]), recv(live[3]));
        if (++n[static_cast<size_t>(k)] == kEach) live[static_cast<size_t>(k)] = nullptr;
        received[static_cast<size_t>(k)]++;
      }
      EXPECT_EQ(n, (std::array<int, 4>{kEach, kEach, kEach, kEach}));
    });
    wg.wait();
    for (const auto& r : received) EXPECT_EQ(r.load(), 2 * kEach);
  });
}

// `hits` of `trials` with k equally likely cases lies within 4.89 sigma.
void expect_share(int hits, int trials, int k) {
  const double p = 1.0 / k;
  const double r = static_cast<double>(hits) / trials;
  EXPECT_LE(std::abs(r - p), 4.89 * std::sqrt(p * (1 - p) / trials))
      << hits << " of " << trials << " among " << k << " ready cases";
}

TEST(Select, SplitsEvenlyBetweenTwoReadyCases) {  // 20
  each_run([] {
    constexpr int kTrials = 10000;
    Chan<int> c1 = make_chan<int>(kTrials + 1);
    Chan<int> c2 = make_chan<int>(kTrials + 1);
    for (int i = 0; i <= kTrials; i++) {
      c1.send(1);
      c2.send(2);
    }
    Chan<int> never = make_chan<int>();
    Chan<int> full = make_chan<int>(1);
    full.send(0);
    std::array<int, 4> hits{};
    for (int i = 0; i < kTrials; i++)
      hits[static_cast<size_t>(select(recv(never), recv(c1), recv(c2), send(full, 1)))]++;
    EXPECT_EQ(hits[0], 0);
    EXPECT_EQ(hits[3], 0);
    EXPECT_LE(std::abs(hits[1] / static_cast<double>(kTrials) - 0.5), 0.0245);
    EXPECT_EQ(hits[1] + hits[2], kTrials);
  });
}

TEST(Select, SplitsEvenlyAmongUpToEightReadyCasesOfASelector) {  // 20
  each_run([] {
    constexpr int kTrials = scaled(4000, 2000);
    for (size_t k = 2; k <= 8; k++) {
      std::vector<Chan<int>> c;
      for (size_t i = 0; i < k; i++) {
        c.push_back(make_chan<int>(1));
        c.back().close();
      }
      std::vector<int> hits(k);
      for (int t = 0; t < kTrials; t++) {
        Selector s;
        int v = 0;
        for (const Chan<int>& ch : c) s.recv(ch, v);
        hits.at(static_cast<size_t>(s.wait()))++;
      }
      for (int h : hits) expect_share(h, kTrials, static_cast<int>(k));
    }
  });
}

TEST(Select, PrioritizedTakesTheFirstReadyInOrder) {
  each_run([] {
    Chan<int> a = make_chan<int>(1), b = make_chan<int>(1);
    int v = 0;
    for (int i = 0; i < 200; i++) {
      a.send(1);
      b.send(2);
      ASSERT_EQ(select(prioritized, recv(a, v), recv(b, v)), 0);
      ASSERT_EQ(v, 1);
      ASSERT_EQ(select(prioritized, recv(a, v), recv(b, v)), 1);
      ASSERT_EQ(v, 2);
    }
    EXPECT_EQ(select(prioritized, recv(a, v), recv(b, v), otherwise()), 2);
    go_parked("select", [=] {
      int w = 0;
      EXPECT_EQ(select(prioritized, recv(a, w), recv(b, w)), 1);
    });
    b.send(3);
    EXPECT_TRUE(settle(1, 30s));
  });
}

TEST(Select, EachOfTwoReadySendsIsChosenATenthOfTheTimeAtLeast) {  // 21
  each_run([] {
    constexpr int kValues = 200;
    for (int cap : {0, kValues}) {
      Chan<int> c = make_chan<int>(cap);
      std::vector<int> got;
      Chan<void> done = make_chan<void>();
      go([&, c] {
        for (int i = 0; i < kValues; i++) {
          yield();
          got.push_back(c.recv_or());
        }
        done.send();
      });
      for (int i = 0; i < kValues; i++) select(send(c, 1), send(c, 0));
      done.recv();
      int ones = 0;
      for (int v : got) ones += v;
      EXPECT_GT(ones, kValues / 10);
      EXPECT_LT(ones, kValues - kValues / 10);
    }
  });
}

TEST(Select, SameChanTwiceLosesBothEntriesAndKeepsTheQueue) {  // 23
  each_run([] {
    Chan<int> c = make_chan<int>(), d = make_chan<int>(), e = make_chan<int>();
    go_parked("select", [=] {
      int v = 0;
      EXPECT_EQ(select(recv(c, v), recv(c, v), recv(d, v)), 2);
      EXPECT_EQ(v, 7);
      e.send(9);
    });
    go_parked("chan receive", [=] { EXPECT_EQ(c.recv(), 8); });
    d.send(7);  // the select leaves c's queue twice
    EXPECT_EQ(e.recv(), 9);
    c.send(8);  // and the second waiter is still in it
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_FALSE(c.try_send(1));
    // The same, sending, and with the duplicate itself as the winner.
    go_parked("select", [=] { EXPECT_LT(select(send(c, 1), send(c, 2), recv(c), recv(d)), 2); });
    const int v = c.recv_or();
    EXPECT_TRUE(v == 1 || v == 2);
    EXPECT_EQ(c.try_recv().status, RecvStatus::Empty);
    EXPECT_FALSE(c.try_send(3));
    EXPECT_TRUE(settle(1, 30s));
  });
}

// A select that loses on c stands at place `at` of c's queue of three.
void loser_leaves_queue_intact(int at) {
  Chan<int> c = make_chan<int>(), d = make_chan<int>();
  Chan<std::pair<int, int>> got = make_chan<std::pair<int, int>>(4);
  for (int i = 0, waiter = 0; i < 3; i++) {
    if (i == at) {
      go_parked("select", [=] {
        int v = 0;
        EXPECT_EQ(select(recv(c, v), recv(d, v)), 1);
        got.send({-1, v});
      });
    } else {
      go_parked("chan receive", [=] { got.send({waiter, c.recv_or(-5)}); });
      waiter++;
    }
  }
  d.send(77);
  EXPECT_EQ(got.recv(), std::make_pair(-1, 77));
  go_parked("chan receive", [=] { got.send({2, c.recv_or(-5)}); });
  for (int i = 0; i < 3; i++) {
    c.send(i);
    EXPECT_EQ(got.recv(), std::make_pair(i, i)) << "with the loser at place " << at;
  }
  EXPECT_FALSE(c.try_send(9));
}

TEST(Select, LoserAnywhereInAQueueDoesNotCorruptIt) {  // 24
  each_run([] {
    for (int at = 0; at < 3; at++) loser_leaves_queue_intact(at);
  });
}

TEST(Select, OfTwoCasesMadeReadyAtOnceOnlyOneRuns) {  // 25
  each_run([] {
    constexpr int kValues = scaled(20000, 2000);
    std::array<Chan<int>, 4> c;
    for (Chan<int>& ch : c) ch = make_chan<int>();
    Chan<int> merged = make_chan<int>();
    std::atomic<int> open{4};
    for (const Chan<int>& ch : c)
      go([=, &open] {
        for (int v : ch) merged.send(v);
        if (--open == 0) merged.close();
      });
    go([=] {
      for (int i = 0; i < kValues; i++)
        select(send(c[0], i), send(c[1], i), send(c[2], i), send(c[3], i));
      for (const Chan<int>& ch : c) ch.close();
    });
    std::vector<bool> seen(kValues);
    int n = 0;
    for (int v : merged) {
      ASSERT_FALSE(seen[static_cast<size_t>(v)]) << "value " << v << " was sent through two cases";
      seen[static_cast<size_t>(v)] = true;
      n++;
    }
    EXPECT_EQ(n, kValues);
  });
}

TEST(Select, BlockingMatrixForNilClosedEmptyFull) {  // 28
  each_runtime([] {
    const Chan<int> nil;
    const Chan<int> empty = make_chan<int>(10);
    const Chan<int> full = make_chan<int>(2);
    full.send(1);
    full.send(2);
    const Chan<int> sync = make_chan<int>();
    Chan<int> closed = make_chan<int>();
    closed.close();
    Chan<int> closed_with_value = make_chan<int>(2);
    closed_with_value.send(3);
    closed_with_value.close();
    std::atomic<int> returned{0};
    int parked = 0;
    auto blocks = [&](std::string_view reason, auto f) {
      parked++;
      go_parked(reason, [f, &returned] {
        f();
        returned++;
      });
    };
    blocks("chan receive (nil chan)", [=] { (void)nil.recv(); });
    blocks("chan send (nil chan)", [=] { nil.send(7); });
    blocks("chan receive", [=] { (void)sync.recv(); });
    blocks("select (no cases)", [] { select(); });
    blocks("", [=] { select(recv(nil)); });
    blocks("", [=] { select(send(nil, 7)); });
    blocks("", [=] { select(recv(nil), send(nil, 7)); });
    blocks("", [=] { select(recv(nil), send(nil, 7), recv(Chan<void>())); });
    blocks("select", [=] { select(send(nil, 7), send(full, 3)); });
    blocks("chan send", [=] { full.send(4); });
    blocks("chan receive", [=] { (void)empty.recv(); });
    blocks("", [] {
      Selector s;
      (void)s.wait();
    });
    blocks("", [=] {
      Selector s;
      int v = 0;
      s.recv(nil, v);
      s.send(nil, 1);
      (void)s.wait();
    });
    // What does not block, while all of these wait.
    EXPECT_EQ(closed.recv(), std::nullopt);
    EXPECT_EQ(closed_with_value.recv(), 3);
    EXPECT_EQ(closed_with_value.recv(), std::nullopt);
    EXPECT_EQ(select(recv(nil), otherwise()), 1);
    EXPECT_EQ(select(send(nil, 7), otherwise()), 1);
    EXPECT_EQ(select(recv(closed), recv(nil)), 0);
    EXPECT_EQ(select(send(nil, 7), recv(closed)), 1);
    EXPECT_EQ(select(recv(nil), otherwise(), send(nil, 7)), 1);
    EXPECT_EQ(panic_of([&] { select(send(closed, 7)); }), "send on closed channel");
    EXPECT_EQ(returned.load(), 0);
    EXPECT_GE(num_goroutines(), parked);
  });
}

TEST(Select, ReadyCaseProceedsBesideANeverReadyOne) {  // 29
  each_run([] {
    Chan<int> c = make_chan<int>(1), never = make_chan<int>();
    c.send(42);
    int v = 0;
    EXPECT_EQ(select(recv(never, v), recv(c, v)), 1);
    EXPECT_EQ(v, 42);
    EXPECT_EQ(select(recv(Chan<int>(), v), send(c, 43)), 1);
    EXPECT_EQ(select(recv(c, v), recv(never, v)), 0);
    EXPECT_EQ(v, 43);
  });
}

TEST(Select, MemoryDoesNotGrowOverManySelects) {  // 32
  each_run([] {
    constexpr int kRounds = scaled(100000, 20000);
    Chan<int> a = make_chan<int>(), b = make_chan<int>();
    auto sender = [=](int n) {
      for (int i = 0; i < n; i++) select(send(a, i), send(b, i));
    };
    auto receiver = [=](int n) {
      int v = 0;
      for (int i = 0; i < n; i++) select(recv(a, v), recv(b, v));
    };
    auto both = [=](int n) {
      WaitGroup wg;
      wg.go([=] { sender(n); });
      wg.go([=] { receiver(n); });
      wg.wait();
    };
    both(1000);
#if defined(__GLIBC__)
    const size_t before = mallinfo2().uordblks;
    both(kRounds);
    const size_t after = mallinfo2().uordblks;
    if (!kTsan && !kAsan) {
      EXPECT_LT(after, before + 100'000);
    }
#else
    both(kRounds);
#endif
  });
}

TEST(Select, TimeoutsFireOnlyWhenNothingElseCan) {
  each_run([] {
    Chan<int> c = make_chan<int>(1);
    const Time before = now();
    EXPECT_EQ(select(recv(c), timeout(5ms)), 1);
    EXPECT_GE(now() - before, 5ms);
    c.send(1);
    EXPECT_EQ(select(timeout(0ms), recv(c)), 1) << "a ready case beats a timeout of zero";
    EXPECT_EQ(select(timeout(0ms), recv(c)), 0);
    EXPECT_EQ(select(timeout(-5ms), recv(c)), 0);
    EXPECT_EQ(select(recv(c), timeout(now() + 2ms)), 1);
    EXPECT_EQ(select(recv(c), timeout(2ms), timeout(1h)), 1);
    // Durations saturate instead of wrapping.
    c.send(2);
    EXPECT_EQ(select(recv(c), timeout(std::chrono::hours::max())), 0);
    go_parked("select", [=] {
      EXPECT_EQ(
          select(recv(c), timeout(std::chrono::years(100000)), timeout(std::chrono::hours::max())),
          0);
    });
    c.send(3);
    EXPECT_TRUE(settle(1, 30s));
    bool ran = false;
    EXPECT_EQ(select(recv(c), timeout(1ms, [&] { ran = true; })), 1);
    EXPECT_TRUE(ran);
  });
}

TEST(Select, CrossingSelectsOnTwoChansDoNotDeadlock) {
  each_run([] {
    constexpr int kRounds = scaled(20000, 2000);
    Chan<int> a = make_chan<int>(), b = make_chan<int>();
    std::atomic<int64_t> sent{0}, received{0};
    WaitGroup wg;
    for (int p = 0; p < 2; p++) {
      wg.go([&, p] {
        for (int i = 1; i <= kRounds; i++) {
          if (p == 0)
            select(send(a, i), send(b, i));
          else
            select(send(b, i), send(a, i));
          sent += i;
        }
      });
      wg.go([&, p] {
        int v = 0;
        for (int i = 0; i < kRounds; i++) {
          if (p == 0)
            select(recv(b, v), recv(a, v));
          else
            select(recv(a, v), recv(b, v));
          received += v;
        }
      });
    }
    wg.wait();
    EXPECT_EQ(sent.load(), received.load());
  });
}

TEST(Select, FromAPlainThread) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    Chan<int> a = make_chan<int>(), b = make_chan<int>();
    Chan<int> out = make_chan<int>(1);
    rt.go([=] {
      for (int i = 0; i < 1000; i++) select(send(a, 1), send(b, 2));
      out.send(1);
    });
    int n = 0;
    for (int i = 0; i < 1000; i++) {
      int v = 0;
      const int k = select(recv(a, v), recv(b, v), timeout(1h));
      EXPECT_EQ(v, k + 1);
      n++;
    }
    EXPECT_EQ(n, 1000);
    EXPECT_EQ(select(recv(a), timeout(1ms)), 1);
    EXPECT_EQ(select(recv(out)), 0);
    rt.stop(5s);
  }
}

}  // namespace
}  // namespace weft::test
