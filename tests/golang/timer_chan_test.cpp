// The channel of a Timer or Ticker is synchronous: nothing stale after stop or reset, len and cap
// always 0.
#include <functional>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

// Waits without receiving until a timer armed now for `d` would have fired.
void let_pass(nanoseconds d) {
  sleep_for(d);
  for (int i = 0; i < 10; i++) yield();
}

TEST(TimerChan, LenAndCapAreAlwaysZero) {  // 152
  each_run([] {
    Timer t(1h);
    Ticker k(1ms);
    EXPECT_EQ(t.chan().len(), 0u);
    EXPECT_EQ(t.chan().cap(), 0u);
    t.reset(0ns);
    let_pass(3ms);
    EXPECT_EQ(t.chan().len(), 0u) << "fired and unread";
    EXPECT_EQ(t.chan().cap(), 0u);
    EXPECT_EQ(k.chan().len(), 0u);
    EXPECT_EQ(k.chan().cap(), 0u);
    EXPECT_TRUE(t.chan().recv());
    EXPECT_TRUE(t.chan() == t.chan());
  });
}

TEST(TimerChan, StopOfAFiredUnreadTimerReturnsTrueAndTakesTheValue) {  // 152
  each_run([] {
    Timer t(0ns);
    let_pass(2ms);
    EXPECT_TRUE(t.stop());
    EXPECT_EQ(t.chan().try_recv().status, RecvStatus::Empty) << "a stale value";
    EXPECT_EQ(t.chan().recv_for(3ms).status, RecvStatus::Empty);
    EXPECT_FALSE(t.stop());
  });
}

TEST(TimerChan, ResetOfAFiredUnreadTimerReturnsTrueAndTakesTheValue) {  // 152
  each_run([] {
    Timer t(0ns);
    let_pass(2ms);
    EXPECT_TRUE(t.reset(1h));
    EXPECT_EQ(t.chan().recv_for(3ms).status, RecvStatus::Empty) << "a stale value";
    const Time again = now();
    EXPECT_TRUE(t.reset(5ms));
    const std::optional<Time> v = t.chan().recv();
    ASSERT_TRUE(v);
    EXPECT_GE(*v - again, 5ms) << "the value of the first firing";
  });
}

TEST(TimerChan, TickerStopAndResetUnread) {  // 152
  each_run([] {
    Ticker t(1ms);
    let_pass(3ms);
    t.stop();
    EXPECT_EQ(t.chan().recv_for(5ms).status, RecvStatus::Empty) << "a stale tick";
    const Time again = now();
    t.reset(5ms);
    const std::optional<Time> v = t.chan().recv();
    ASSERT_TRUE(v);
    EXPECT_GE(*v - again, 5ms) << "a stale tick";
  });
}

TEST(TimerChan, FarResetWhileAReceiverIsBlocked) {  // 152
  each_run([] {
    Timer t(1h);
    Chan<Time> got = make_chan<Time>();
    go_parked("chan receive", [&] { got.send(t.chan().recv_or()); });
    EXPECT_TRUE(t.reset(2h));
    EXPECT_EQ(got.recv_for(5ms).status, RecvStatus::Empty);
    EXPECT_TRUE(t.reset(0ns));
    EXPECT_EQ(got.recv_for(30s).status, RecvStatus::Ok);
  });
}

TEST(TimerChan, ImminentResetWhileAReceiverIsBlocked) {  // 152
  each_run([] {
    for (int i = 0; i < 50; i++) {
      Timer t(1h);
      Chan<Time> got = make_chan<Time>();
      go_parked(i % 2 ? "select" : "chan receive", [&, i] {
        Time v;
        if (i % 2)
          select(recv(t.chan(), v), recv(Chan<int>()));
        else
          v = t.chan().recv_or();
        got.send(v);
      });
      const Time at = now();
      EXPECT_TRUE(t.reset(std::chrono::microseconds(i)));
      const Recv<Time> r = got.recv_for(30s);
      ASSERT_EQ(r.status, RecvStatus::Ok);
      EXPECT_GE(*r.value - at, std::chrono::microseconds(i));
    }
  });
}

TEST(TimerChan, StoppedTimerWakesNobody) {  // 152
  each_runtime([] {
    Timer t(1h);
    std::atomic<int> woken{0};
    auto c = t.chan();
    for (int i = 0; i < 3; i++)
      go_parked("", [&woken, c, i] {
        if (i == 0)
          (void)c.recv();
        else
          select(recv(c), recv(Chan<int>()));
        woken++;
      });
    EXPECT_TRUE(t.reset(50ms));
    const bool stopped = t.stop();
    if (!stopped) return;  // a loaded machine: it has fired already
    let_pass(60ms);
    EXPECT_EQ(woken.load(), 0);
  });
}

TEST(TimerChan, OfTwoSelectersOneGetsTheTick) {  // 152
  each_run([] {
    for (int i = 0; i < 30; i++) {
      Timer t(1h);
      Chan<void> quit = make_chan<void>();
      std::atomic<int> ticks{0};
      WaitGroup wg;
      for (int s = 0; s < 2; s++)
        wg.go([&] {
          if (select(recv(t.chan()), recv(quit)) == 0) ticks++;
        });
      t.reset(std::chrono::microseconds(i * 10));
      eventually([&] { return ticks >= 1; });
      for (int k = 0; k < 20; k++) yield();
      EXPECT_EQ(ticks.load(), 1);
      quit.close();
      wg.wait();
      EXPECT_EQ(ticks.load(), 1);
    }
  });
}

TEST(TimerChan, NoStaleValueUnderConcurrentResets) {  // 152
  each_run([] {
    constexpr int kRounds = scaled(2000, 300);
    Timer t(0ns);
    for (int i = 0; i < kRounds; i++) {
      for (int k = 0; k < i % 5; k++) yield();
      const Time armed = now();
      t.reset(std::chrono::microseconds(i % 30));
      if (i % 3 == 0) continue;
      const std::optional<Time> v = t.chan().recv();
      ASSERT_TRUE(v);
      ASSERT_GE(*v - armed, std::chrono::microseconds(i % 30)) << "a stale value in round " << i;
    }
  });
}

TEST(TimerChan, ResettingAndReceivingRaceWithoutLosingTheLastTick) {  // 152
  each_run([] {
    constexpr int kRounds = scaled(300, 60);
    for (int i = 0; i < kRounds; i++) {
      Timer t(std::chrono::microseconds(20));
      Chan<void> done = make_chan<void>();
      go([&] {
        (void)t.chan().recv();
        done.send();
      });
      for (int k = 0; k < 3; k++) t.reset(std::chrono::microseconds(20));
      done.recv();
    }
  });
}

TEST(TimerChan, ValueIsTheFireTimeNotTheReceiveTime) {  // 153
  each_run([] {
    Timer t;
    Ticker k;
    const std::function<RecvChan<Time>()> kinds[] = {
        [&] { return (t = Timer(10ms)).chan(); },
        [&] { return (k = Ticker(10ms)).chan(); },
        [] { return after(10ms); },
    };
    for (const auto& arm : kinds) {
      nanoseconds said = 1h;
      // The receive comes after 120 ms. On a loaded machine the timer itself is late: one attempt in ten is in time.
      for (int attempt = 0; attempt < 10 && said >= 110ms; attempt++) {
        const Time start = now();
        const RecvChan<Time> c = arm();
        sleep_for(120ms);
        const std::optional<Time> v = c.recv();
        ASSERT_TRUE(v);
        said = *v - start;
        EXPECT_GE(said, 10ms);
      }
      EXPECT_LT(said, 110ms);
    }
  });
}

// Dropping the last handle releases a timer that has not fired.
TEST(TimerChan, UnreferencedTimersAreReleased) {  // 154
  each_run([] {
    constexpr int kTimers = scaled(100000, 5000);
    auto make = [](int n) {
      for (int i = 0; i < n; i++) {
        Timer t(1h);
        Ticker k(1h);
        RecvChan<Time> c = after(1h);
      }
    };
    make(1000);
    const size_t before = resident_bytes();
    make(kTimers);
    if (!kTsan && !kAsan) {
      EXPECT_LT(resident_bytes(), before + (8u << 20)) << "300,000 timers were kept";
    }
    // One whose channel is still held lives on.
    RecvChan<Time> c;
    {
      Timer t(5ms);
      c = t.chan();
    }
    EXPECT_TRUE(c.recv());
  });
}

TEST(TimerChan, RangeOverATickerEndsWithBreak) {
  each_run([] {
    Ticker t(1ms);
    int n = 0;
    Time last{};
    for (Time at : t.chan()) {
      EXPECT_GT(at, last);
      last = at;
      if (++n == 5) break;
    }
    EXPECT_EQ(n, 5);
  });
}

TEST(TimerChan, FromAPlainThread) {
  Runtime rt{Machine{2, 4}.config()};
  ASSERT_FALSE(rt.start());
  {
    Timer t(5ms);
    EXPECT_TRUE(t.chan().recv());
    t.reset(1h);
    EXPECT_TRUE(t.stop());
    std::atomic<bool> ran{false};
    after_func(1ms, [&] { ran = true; });
    eventually([&] { return ran.load(); });
    const Time before = now();
    sleep_for(3ms);
    EXPECT_GE(now() - before, 3ms);
  }
  rt.stop(5s);
}

}  // namespace
}  // namespace weft::test
