// Channels one at a time: blocking, order, capacity, nil. The number after each test is its line in
// Go's behaviours.
#include <array>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(Chan, ReceiveOnEmptyBlocksAtEveryCapacity) {  // 1
  each_run([] {
    for (int cap = 0; cap <= 200; cap++) {
      Chan<int> c = make_chan<int>(cap);
      Chan<int> got = make_chan<int>(2);
      go_parked("chan receive", [=] { got.send(c.recv().value_or(-1)); });
      go_parked("chan receive", [=] { got.send(c.recv_or()); });
      ASSERT_EQ(got.len(), 0u) << "a receive on an empty channel of capacity " << cap
                               << " returned";
      c.send(7);
      c.send(7);
      ASSERT_EQ(got.recv(), 7);
      ASSERT_EQ(got.recv(), 7);
    }
  });
}

TEST(Chan, TryReceiveOnEmptyFindsNothing) {  // 2
  each_run([] {
    for (int cap = 0; cap <= 200; cap++) {
      Chan<int> c = make_chan<int>(cap);
      const Recv<int> r = c.try_recv();
      ASSERT_EQ(r.status, RecvStatus::Empty);
      ASSERT_FALSE(r.value);
      int v = 5;
      bool ok = true;
      ASSERT_EQ(select(recv(c, v), otherwise()), 1);
      ASSERT_EQ(select(recv(c, v, ok), otherwise()), 1);
      ASSERT_EQ(v, 5);
      ASSERT_TRUE(ok);
    }
  });
}

TEST(Chan, SendOnFullBlocksAndTrySendTakesDefault) {  // 3
  each_run([] {
    for (int cap : {0, 1, 2, 10, 200}) {
      Chan<int> c = make_chan<int>(cap);
      for (int i = 0; i < cap; i++) c.send(i);
      Chan<int> done = make_chan<int>(1);
      ASSERT_FALSE(c.try_send(99));
      ASSERT_EQ(select(send(c, 99), otherwise()), 1);
      go_parked("chan send", [=] {
        c.send(cap);
        done.send(1);
      });
      ASSERT_EQ(done.len(), 0u);
      ASSERT_FALSE(c.try_send(99)) << "room was seen although a sender waits";
      for (int i = 0; i <= cap; i++) ASSERT_EQ(c.recv(), i);
      ASSERT_EQ(done.recv(), 1);
      ASSERT_EQ(c.try_recv().status, RecvStatus::Empty);
    }
  });
}

TEST(Chan, ValuesArriveInTheOrderSent) {  // 4
  each_run([] {
    for (int cap = 0; cap <= 100; cap++) {
      Chan<int> c = make_chan<int>(cap);
      go([c] {
        for (int i = 0; i < 100; i++) c.send(i);
      });
      for (int i = 0; i < 100; i++) ASSERT_EQ(c.recv(), i) << "capacity " << cap;
    }
  });
}

TEST(Chan, EveryValueOfFourSendersIsSeenByFourReceiversOnce) {  // 5
  each_run([] {
    constexpr int kPeers = 4;
    constexpr int kEach = scaled(1000, 200);
    for (int cap : {0, 1, 7, 100, 200}) {
      Chan<int> c = make_chan<int>(cap);
      Chan<std::map<int, int>> seen = make_chan<std::map<int, int>>(kPeers);
      for (int p = 0; p < kPeers; p++)
        go([c] {
          for (int i = 0; i < kEach; i++) c.send(i);
        });
      for (int p = 0; p < kPeers; p++)
        go([c, seen] {
          std::map<int, int> mine;
          for (int i = 0; i < kEach; i++) mine[c.recv().value_or(-1)]++;
          seen.send(mine);
        });
      std::map<int, int> all;
      for (int p = 0; p < kPeers; p++)
        for (auto [v, n] : seen.recv_or()) all[v] += n;
      ASSERT_EQ(all.size(), static_cast<size_t>(kEach));
      for (auto [v, n] : all) ASSERT_EQ(n, kPeers) << "value " << v << ", capacity " << cap;
    }
  });
}

TEST(Chan, LenAndCapFollowFillingAndDraining) {  // 12
  each_run([] {
    for (size_t cap : {0u, 1u, 3u, 100u}) {
      Chan<int> c = make_chan<int>(cap);
      ASSERT_EQ(c.cap(), cap);
      for (size_t i = 0; i < cap; i++) {
        ASSERT_EQ(c.len(), i);
        c.send(1);
      }
      ASSERT_EQ(c.len(), cap);
      for (size_t i = cap; i > 0; i--) {
        ASSERT_EQ(c.recv(), 1);
        ASSERT_EQ(c.len(), i - 1);
      }
      ASSERT_EQ(c.cap(), cap);
    }
    Chan<int> nil;
    EXPECT_EQ(nil.len(), 0u);
    EXPECT_EQ(nil.cap(), 0u);
    EXPECT_FALSE(nil);
    // A parked sender is not part of the length.
    Chan<int> c = make_chan<int>(2);
    c.send(1);
    c.send(2);
    go_parked("chan send", [c] { c.send(3); });
    EXPECT_EQ(c.len(), 2u);
    EXPECT_EQ(c.recv(), 1);
    EXPECT_EQ(c.len(), 2u) << "the waiting sender's value did not move to the tail";
    EXPECT_EQ(c.recv(), 2);
    EXPECT_EQ(c.recv(), 3);
  });
}

template <class N>
void capacity_of_type() {
  EXPECT_EQ(make_chan<int>(static_cast<N>(10)).cap(), 10u);
  EXPECT_EQ(make_chan<int>(static_cast<N>(0)).cap(), 0u);
  if constexpr (std::numeric_limits<N>::is_signed) {
    EXPECT_EQ(panic_of([] { make_chan<int>(static_cast<N>(-1)); }), "makechan: size out of range");
  }
}

TEST(Chan, CapacityMayBeOfAnyIntegerType) {  // 13
  each_run([] {
    capacity_of_type<signed char>();
    capacity_of_type<short>();
    capacity_of_type<int>();
    capacity_of_type<long>();
    capacity_of_type<long long>();
    capacity_of_type<unsigned char>();
    capacity_of_type<unsigned short>();
    capacity_of_type<unsigned>();
    capacity_of_type<unsigned long>();
    capacity_of_type<unsigned long long>();
  });
}

TEST(Chan, NegativeOrHugeCapacityPanics) {  // 13
  each_run([] {
    const std::string message = "makechan: size out of range";
    EXPECT_EQ(panic_of([] { make_chan<int>(-1); }), message);
    EXPECT_EQ(panic_of([] { make_chan<int>(std::numeric_limits<int64_t>::min()); }), message);
    EXPECT_EQ(panic_of([] { make_chan<int>(std::numeric_limits<int64_t>::max()); }), message);
    EXPECT_EQ(panic_of([] { make_chan<int>(std::numeric_limits<uint64_t>::max()); }), message);
    EXPECT_EQ(panic_of([] { make_chan<int>(uint64_t{1} << 62); }), message);
    EXPECT_EQ(panic_of([] { make_chan<std::array<char, 100>>(int64_t{1} << 60); }), message);
    EXPECT_TRUE(runtime_panic([] { make_chan<int>(-1); }));
    EXPECT_TRUE(runtime_panic([] { make_chan<void>(-1); }));
  });
}

TEST(Chan, NilBlocksForEverAndTheReasonSaysSo) {  // 14
  each_runtime([] {
    std::atomic<int> returned{0};
    auto leave = std::make_shared<Chan<int>>();
    go_parked("chan receive (nil chan)", [leave, &returned] {
      leave->recv();
      returned++;
    });
    go_parked("chan send (nil chan)", [leave, &returned] {
      leave->send(1);
      returned++;
    });
    go_parked("chan receive (nil chan)", [&returned] {
      for (int v : Chan<int>()) (void)v;
      returned++;
    });
    for (int i = 0; i < 100; i++) yield();
    EXPECT_EQ(returned.load(), 0);
    Chan<int> nil;
    EXPECT_FALSE(nil.try_send(1));
    EXPECT_EQ(nil.try_recv().status, RecvStatus::Empty);
    EXPECT_FALSE(nil.send_for(1, 1ms));
    EXPECT_EQ(nil.recv_for(1ms).status, RecvStatus::Empty);
  });
}

TEST(Chan, AssigningNullptrMakesItNil) {
  each_run([] {
    Chan<int> c = make_chan<int>(1);
    Chan<int> same = c;
    EXPECT_TRUE(c == same);
    c = nullptr;
    EXPECT_FALSE(c);
    EXPECT_TRUE(c == Chan<int>());
    EXPECT_TRUE(same);
    EXPECT_TRUE(same != c);
    EXPECT_FALSE(c.try_send(1));
    EXPECT_TRUE(same.try_send(1));
  });
}

// Each operation tried without blocking first, then made to succeed by a peer, and then blocking.
template <class T>
void nonblocking_then_blocking(T value) {
  // Receive, unbuffered.
  {
    Chan<T> c = make_chan<T>();
    ASSERT_EQ(c.try_recv().status, RecvStatus::Empty);
    go_parked("chan send", [c, value] { c.send(value); });
    const Recv<T> r = c.try_recv();
    ASSERT_EQ(r.status, RecvStatus::Ok) << "the parked sender was not found";
    ASSERT_TRUE(*r.value == value);
    go([c, value] { c.send(value); });
    ASSERT_TRUE(c.recv() == value);
  }
  // Send, unbuffered.
  {
    Chan<T> c = make_chan<T>();
    Chan<bool> good = make_chan<bool>(1);
    ASSERT_FALSE(c.try_send(value));
    go_parked("chan receive", [c, good, value] { good.send(c.recv() == value); });
    ASSERT_TRUE(c.try_send(value)) << "the parked receiver was not found";
    ASSERT_TRUE(good.recv_or());
    go([c, good, value] { good.send(c.recv() == value); });
    c.send(value);
    ASSERT_TRUE(good.recv_or());
  }
  // Both, with one slot.
  {
    Chan<T> c = make_chan<T>(1);
    ASSERT_EQ(c.try_recv().status, RecvStatus::Empty);
    ASSERT_TRUE(c.try_send(value));
    ASSERT_FALSE(c.try_send(value));
    ASSERT_TRUE(c.try_recv().value == value);
    c.send(value);
    go_parked("chan send", [c, value] { c.send(value); });
    ASSERT_TRUE(c.recv() == value);
    ASSERT_TRUE(c.recv() == value);
    go([c, value] { c.send(value); });
    ASSERT_TRUE(c.recv() == value);
  }
}

TEST(Chan, EachOperationNonBlockingThenBlockingForSeveralSizes) {  // 27
  each_run([] {
    nonblocking_then_blocking<int8_t>(42);
    nonblocking_then_blocking<int32_t>(123456);
    nonblocking_then_blocking<int64_t>(1234567890123);
    nonblocking_then_blocking<std::string>(
        "a string that is too long for the inline buffer of one");
    std::array<int64_t, 12> big{};
    big.fill(7);
    nonblocking_then_blocking(big);
    std::array<char, 6000> boxed{};
    boxed.fill('x');
    nonblocking_then_blocking(boxed);
  });
}

TEST(Chan, TimedFormsTimeOutAndSucceed) {
  each_run([] {
    Chan<int> c = make_chan<int>();
    const Time before = now();
    EXPECT_FALSE(c.send_for(1, 5ms));
    EXPECT_GE(now() - before, 5ms);
    const Recv<int> none = c.recv_for(5ms);
    EXPECT_EQ(none.status, RecvStatus::Empty);
    EXPECT_GE(now() - before, 10ms);
    EXPECT_FALSE(c.send_for(1, 0ms));
    EXPECT_EQ(c.recv_for(-1h).status, RecvStatus::Empty);

    go_parked("chan receive", [c] { EXPECT_EQ(c.recv(), 3); });
    EXPECT_TRUE(c.send_for(3, 1h));
    go_parked("chan send", [c] { c.send(4); });
    const Recv<int> four = c.recv_for(1h);
    EXPECT_EQ(four.status, RecvStatus::Ok);
    EXPECT_EQ(four.value, 4);
    // A wait that timed out has left the queue.
    EXPECT_FALSE(c.send_for(5, 1ms));
    EXPECT_EQ(c.try_recv().status, RecvStatus::Empty);
    EXPECT_EQ(c.recv_for(1ms).status, RecvStatus::Empty);
    EXPECT_FALSE(c.try_send(6));
    c.close();
    EXPECT_EQ(c.recv_for(1h).status, RecvStatus::Closed);
    EXPECT_EQ(panic_of([&] { c.send_for(1, 1h); }), "send on closed channel");
  });
}

TEST(Chan, TimeoutsRacingWithPeersLoseNoValue) {
  each_run([] {
    constexpr int kValues = scaled(2000, 300);
    Chan<int> c = make_chan<int>();
    Chan<int> sum = make_chan<int>(1);
    go([=] {
      int64_t next = 0;
      while (next < kValues) {
        const Recv<int> r = c.recv_for(std::chrono::microseconds(next % 7 * 10));
        if (r.status == RecvStatus::Ok) {
          EXPECT_EQ(r.value, next);
          next++;
        }
      }
      sum.send(static_cast<int>(next));
    });
    int timeouts = 0;
    for (int i = 0; i < kValues;)
      if (c.send_for(i, std::chrono::microseconds(i % 5 * 10)))
        i++;
      else
        timeouts++;
    EXPECT_EQ(sum.recv(), kValues) << "after " << timeouts << " sends that timed out";
  });
}

TEST(Chan, BlockedGoroutinesAreServedInArrivalOrder) {  // 26
  each_run([] {
    constexpr int kWaiters = 50;
    Chan<int> c = make_chan<int>();
    Chan<std::pair<int, int>> got = make_chan<std::pair<int, int>>(kWaiters);
    for (int i = 0; i < kWaiters; i++)
      go_parked("chan receive", [=] {
        const int v = c.recv().value_or(-1);
        got.send({i, v});
      });
    for (int i = 0; i < kWaiters; i++) c.send(i);
    for (int i = 0; i < kWaiters; i++) {
      const auto [who, what] = got.recv_or();
      EXPECT_EQ(who, what) << "a later receiver was served first";
    }
    for (int i = 0; i < kWaiters; i++) go_parked("chan send", [=] { c.send(i); });
    for (int i = 0; i < kWaiters; i++) EXPECT_EQ(c.recv(), i) << "a later sender was served first";
  });
}

// Goroutine i waits for its turn on `in` and passes it on.
TEST(Chan, UnbufferedChainKeepsOrder) {  // 26
  each_run([] {
    constexpr int kLinks = 100;
    Chan<int> ready = make_chan<int>();
    std::vector<int> order;
    Chan<int> in = ready;
    for (int i = 0; i < kLinks; i++) {
      Chan<int> out = make_chan<int>();
      go([=, &order] {
        ASSERT_EQ(in.recv(), i);
        order.push_back(i);
        out.send(i + 1);
      });
      in = out;
    }
    ready.send(0);
    EXPECT_EQ(in.recv(), kLinks);
    ASSERT_EQ(order.size(), static_cast<size_t>(kLinks));
    for (int i = 0; i < kLinks; i++) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  });
}

TEST(Chan, SixtyFourGoroutinesOnOneChanProgressAndLeaveCpuForOthers) {  // 40
  each_run([] {
    constexpr int kPeers = 64;
    Chan<int> c = make_chan<int>();
    std::atomic<bool> stop{false};
    std::array<std::atomic<int>, kPeers> steps{};
    WaitGroup wg;
    for (int i = 0; i < kPeers; i++)
      wg.go([&, i] {
        while (!stop) {
          if (i % 2 == 0)
            c.send_for(i, 50ms);
          else
            (void)c.recv_for(50ms);
          steps[static_cast<size_t>(i)]++;
        }
      });
    // The bystander gets the CPU again and again while all 64 are at it.
    for (int i = 0; i < 100; i++) yield();
    for (const auto& s : steps) eventually([&] { return s >= 20; });
    stop = true;
    wg.wait();
  });
}

TEST(Chan, PlainThreadsSendAndReceive) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    constexpr int kValues = scaled(5000, 1000);
    Chan<int> there = make_chan<int>();
    Chan<int> back = make_chan<int>(3);
    rt.go([=] {
      for (int v : there) back.send(v + 1);
      back.close();
    });
    std::thread producer([&] {
      for (int i = 0; i < kValues; i++) there.send(i);
      there.close();
    });
    int next = 1;
    for (int v : back) EXPECT_EQ(v, next++);
    EXPECT_EQ(next, kValues + 1);
    producer.join();
    const StopResult r = rt.stop(5s);
    EXPECT_TRUE(r.unwound.empty());
    EXPECT_TRUE(r.abandoned.empty());
  }
}

}  // namespace
}  // namespace weft::test
