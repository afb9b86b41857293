// Waits that a context ends: all of them, at once or when it comes, and never one that has happened. And
// the functions that it starts.
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(ContextWait, EndsEveryKindOfWait) {
  each_run([] {
    auto [ctx, cancel] = with_cancel(background());
    Chan<int> c = make_chan<int>(), d = make_chan<int>(), nil;
    Chan<void> sig = make_chan<void>();
    Mutex mu;
    mu.lock();
    WaitGroup wg;
    wg.add(1);
    go_parked("chan receive", [=, ctx = ctx] { EXPECT_EQ(c.recv(ctx).status, RecvStatus::Canceled); });
    go_parked("chan send", [=, ctx = ctx] { EXPECT_EQ(d.send(ctx, 1), Errc::canceled); });
    cancel();
    EXPECT_TRUE(settle(1, kPatience));
    auto [ctx2, cancel2] = with_cancel(background());
    go_parked("chan receive", [=, ctx = ctx2] { EXPECT_FALSE(sig.recv(ctx)); });
    go_parked("chan receive (nil chan)", [=, ctx = ctx2] { EXPECT_EQ(nil.recv(ctx).status, RecvStatus::Canceled); });
    go_parked("chan send (nil chan)", [=, ctx = ctx2] { EXPECT_EQ(nil.send(ctx, 1), Errc::canceled); });
    go_parked("sync.Mutex.Lock", [&, ctx = ctx2] { EXPECT_EQ(mu.lock(ctx), Errc::canceled); });
    go_parked("sync.WaitGroup.Wait", [&, ctx = ctx2] { EXPECT_EQ(wg.wait(ctx), Errc::canceled); });
    go_parked("sleep", [=, ctx = ctx2] { EXPECT_EQ(sleep_for(ctx, 1h), Errc::canceled); });
    cancel2();
    EXPECT_TRUE(settle(1, kPatience));
    // Nothing of theirs is left in the objects.
    go_parked("chan receive", [=] { EXPECT_EQ(c.recv(), 5); });
    c.send(5);
    mu.unlock();
    EXPECT_TRUE(mu.try_lock());
    mu.unlock();
    wg.done();
    EXPECT_TRUE(settle(1, kPatience));
  });
}

TEST(ContextWait, IsLevelTriggered) {
  each_run([] {
    auto [ctx, cancel] = with_cancel(background());
    Chan<int> c = make_chan<int>(1);
    c.send(1);
    Mutex mu;
    WaitGroup wg;
    EXPECT_FALSE(mu.lock(ctx));
    mu.unlock();
    EXPECT_FALSE(wg.wait(ctx));
    EXPECT_FALSE(sleep_for(ctx, 0s));
    cancel();
    // Done already: also what need not wait fails, each time.
    for (int i = 0; i < 3; i++) {
      EXPECT_EQ(c.recv(ctx).status, RecvStatus::Canceled);
      EXPECT_EQ(mu.lock(ctx), Errc::canceled);
      EXPECT_EQ(wg.wait(ctx), Errc::canceled);
      EXPECT_EQ(sleep_for(ctx, 0s), Errc::canceled);
    }
    EXPECT_EQ(c.len(), 1u);
    EXPECT_TRUE(mu.try_lock());
    mu.unlock();
    auto owned = std::make_unique<int>(1);
    Chan<std::unique_ptr<int>> box = make_chan<std::unique_ptr<int>>(1);
    EXPECT_EQ(box.send(ctx, std::move(owned)), Errc::canceled);
    EXPECT_TRUE(owned) << "an element that was not sent is the sender's";
  });
}

TEST(ContextWait, DeadlineOfTheContextIsItsError) {
  each_run([] {
    const Time before = now();
    auto [ctx, cancel] = with_timeout(background(), 3ms);
    EXPECT_EQ(sleep_for(ctx, 1h), Errc::deadline_exceeded);
    EXPECT_GE(now() - before, 3ms);
    auto [later, cancel_later] = with_timeout(background(), 1h);
    const Time begin = now();
    EXPECT_FALSE(sleep_for(later, 2ms));
    EXPECT_GE(now() - begin, 2ms);
    Chan<int> c = make_chan<int>();
    auto [short_, cancel_short] = with_timeout(background(), 1ms);
    EXPECT_EQ(c.recv(short_).status, RecvStatus::Canceled);
    EXPECT_EQ(short_.err(), Errc::deadline_exceeded);
  });
}

// While a cancel is on its way to thousands of siblings, all of them claimed and none told yet, a wait that begins finds no end
// without its error.
TEST(ContextWait, WhoWaitsWhileACancelIsOnItsWayLearnsWhy) {
  in_runtime({.procs = 2, .seed = 1}, [] {
    for (int round = 0; round < 12; round++) {
      const auto [root, cancel] = with_deadline(background(), Clock::now() + 3ms);
      std::vector<CancelContext> siblings;
      for (int i = 0; i < 5'000; i++) siblings.push_back(with_cancel(root));
      WaitGroup waiting;
      // The walk goes from the youngest to the oldest.
      for (const int which : {0, 2'500}) {
        const Context& ctx = siblings[static_cast<size_t>(which)].ctx;
        waiting.go([&ctx] {
          std::error_code e;
          while (!(e = sleep_for(ctx, 1us))) {
          }
          EXPECT_EQ(ctx.err(), e);
          EXPECT_EQ(e, Errc::deadline_exceeded);
        });
      }
      waiting.wait();
    }
  });
}

// A cancel that comes when the wait has looked and is not yet registered.
TEST(ContextWait, ACancelJustBeforeTheWaitIsNotMissed) {
  struct LateCancel : CustomContext {
    mutable CancelFunc cancel;
    mutable int looks = 0;
    LateCancel(Context inner, CancelFunc f) : CustomContext(std::move(inner)), cancel(std::move(f)) {}
    std::error_code err() const override {
      if (looks++ > 0) return inner().err();
      cancel();
      return {};
    }
  };
  each_run([] {
    auto late = [] {
      auto [inner, f] = with_cancel(background());
      return Context(std::make_shared<LateCancel>(inner, f));
    };
    Chan<int> c = make_chan<int>();
    Mutex mu;
    std::lock_guard held{mu};
    EXPECT_EQ(sleep_for(late(), 1h), Errc::canceled);
    EXPECT_EQ(c.recv(late()).status, RecvStatus::Canceled);
    EXPECT_EQ(c.send(late(), 1), Errc::canceled);
    EXPECT_EQ(mu.lock(late()), Errc::canceled);
    std::thread([&] { EXPECT_EQ(c.recv(late()).status, RecvStatus::Canceled); }).join();
  });
}

// The value is received or stays, the lock is held or not: whoever wins the wait's word says so.
TEST(ContextWait, AnOperationThatHappenedKeepsItsResult) {
  each_run([] {
    int both[2] = {};
    for (int i = 0; i < scaled(5000, 300); i++) {
      auto [ctx, cancel] = with_cancel(background());
      Chan<int> c = make_chan<int>();
      Mutex mu;
      mu.lock();
      std::atomic<int> received{0}, sent{0}, locked{0};
      go([&, c, ctx = ctx] { received = c.recv(ctx).value.value_or(0); });
      go([&, ctx = ctx] {
        if (mu.lock(ctx)) return;
        locked = 1;
        mu.unlock();
      });
      go([cancel = cancel] { cancel(); });
      if (i % 3 == 0) yield();
      sent = c.try_send(7) ? 7 : 0;
      mu.unlock();
      EXPECT_TRUE(settle(1, kPatience));
      EXPECT_EQ(received.load(), sent.load()) << "a value was lost";
      both[received != 0]++;
      EXPECT_TRUE(mu.try_lock()) << "the lock was lost";
      mu.unlock();
    }
    EXPECT_GT(both[0], 0);
  });
}

TEST(ContextWait, FromPlainThreads) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    {
      auto [ctx, cancel] = with_cancel(background());
      Chan<int> c = make_chan<int>(), d = make_chan<int>();
      Mutex mu;
      mu.lock();
      WaitGroup wg;
      wg.add(1);
      std::atomic<int> ended{0};
      std::vector<std::thread> threads;
      threads.emplace_back([&, ctx = ctx] { ended += c.recv(ctx).status == RecvStatus::Canceled; });
      threads.emplace_back([&, ctx = ctx] { ended += d.send(ctx, 1) == Errc::canceled; });
      threads.emplace_back([&, ctx = ctx] { ended += mu.lock(ctx) == Errc::canceled; });
      threads.emplace_back([&, ctx = ctx] { ended += wg.wait(ctx) == Errc::canceled; });
      threads.emplace_back([&, ctx = ctx] { ended += sleep_for(ctx, 1h) == Errc::canceled; });
      threads.emplace_back([&] {
        auto [soon, f] = with_timeout(background(), 2ms);
        ended += sleep_for(soon, 1h) == Errc::deadline_exceeded;
      });
      rt.go([cancel = cancel] { cancel(); });
      for (std::thread& t : threads) t.join();
      EXPECT_EQ(ended.load(), 6);
      mu.unlock();
      wg.done();
    }
    rt.stop(5s);
  }
}

TEST(ContextWait, StopOfTheRuntimeUnwindsThem) {
  for (const Machine& m : kMachines) {
    auto [ctx, cancel] = with_cancel(background());
    auto held = std::make_shared<int>(0);
    const StopResult stopped = in_runtime(m, [&, ctx = ctx] {
      Chan<int> c = make_chan<int>();
      for (int i = 0; i < 4; i++) go_parked("chan receive", [c, ctx, held] { (void)c.recv(ctx); });
      for (int i = 0; i < 4; i++) go_parked("sleep", [ctx, held] { sleep_for(ctx, 1h); });
    });
    EXPECT_EQ(stopped.unwound.size(), 8u);
    EXPECT_EQ(held.use_count(), 1) << "destructors ran";
    cancel();  // nobody is left in it
    EXPECT_TRUE(ctx.err());
  }
}

TEST(ContextWait, AnArmedDeadlineEndsWithTheRuntime) {
  auto held = std::make_shared<int>(0);
  static const ContextKey<std::shared_ptr<int>> kHeld{"held"};
  for (const Machine& m : kMachines) {
    in_runtime(m, [&] {
      auto [c, cancel] = with_timeout(with_value(background(), kHeld, held), 1h);
      cancel.detach();
    });
    EXPECT_EQ(held.use_count(), 1);
  }
}

TEST(WaitGroup, TimedAndContextWaits) {
  each_run([] {
    WaitGroup wg;
    EXPECT_TRUE(wg.wait_for(0s));
    wg.add(1);
    const Time before = now();
    EXPECT_FALSE(wg.wait_for(2ms));
    EXPECT_GE(now() - before, 2ms);
    EXPECT_FALSE(wg.wait_for(-1h));
    EXPECT_FALSE(wg.wait_until(now()));
    go_parked("sync.WaitGroup.Wait", [&] { EXPECT_TRUE(wg.wait_for(1h)); });
    auto [ctx, cancel] = with_cancel(background());
    go_parked("sync.WaitGroup.Wait", [&, ctx = ctx] { EXPECT_FALSE(wg.wait(ctx)); });
    wg.done();
    EXPECT_TRUE(settle(1, kPatience));
  });
}

TEST(ContextAfterFunc, RunsOnceTheContextIsDone) {  // 138
  each_run([] {
    auto [c, cancel] = with_cancel(background());
    Chan<uint64_t> ran = make_chan<uint64_t>(10);
    after_func(c, [ran] { ran.send(goid()); });
    auto stop = after_func(c, [](Chan<uint64_t> to, int n) { to.send(static_cast<uint64_t>(-n)); }, ran, 1);
    for (int i = 0; i < 10; i++) yield();
    EXPECT_EQ(ran.len(), 0u);
    cancel();
    std::vector<uint64_t> got{*ran.recv(), *ran.recv()};
    EXPECT_TRUE(got[0] != goid() && got[1] != goid());
    EXPECT_FALSE(stop());
    after_func(c, [ran] { ran.send(1); });  // done already
    EXPECT_EQ(*ran.recv(), 1u);
    auto [t, cancel_t] = with_timeout(background(), 1ms);
    after_func(t, [ran] { ran.send(2); });
    EXPECT_EQ(*ran.recv(), 2u);
    auto [p, cancel_p] = with_cancel(background());
    auto [child, cancel_child] = with_cancel(p);
    after_func(child, [ran] { ran.send(3); });
    cancel_p();
    EXPECT_EQ(*ran.recv(), 3u);
  });
}

TEST(ContextAfterFunc, StoppedOneDoesNotRun) {  // 138
  each_run([] {
    auto [c, cancel] = with_cancel(background());
    auto held = std::make_shared<int>(0);
    std::atomic<int> ran{0};
    auto stop = after_func(c, [&ran, held] { ran += 100; });
    auto other = after_func(c, [&ran] { ran++; });
    EXPECT_TRUE(stop());
    EXPECT_EQ(held.use_count(), 1) << "what it captured is let go at once";
    EXPECT_FALSE(stop());
    cancel();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(ran.load(), 1);
    EXPECT_FALSE(other());
    auto never = after_func(background(), [&ran] { ran = 1000; });
    EXPECT_TRUE(never());
    EXPECT_FALSE(never());
  });
}

TEST(ContextAfterFunc, RunsThoughAllHandlesAreDropped) {
  each_run([] {
    Chan<int> ran = make_chan<int>(2);
    {
      auto [c, cancel] = with_timeout(background(), 2ms);
      cancel.detach();
      after_func(c, [ran] { ran.send(1); });
    }
    EXPECT_EQ(*ran.recv(), 1);
    {
      auto [c, cancel] = with_cancel(background());
      after_func(c, [ran] { ran.send(2); });
    }
    EXPECT_EQ(*ran.recv(), 2);
  });
}

TEST(ContextAfterFunc, EitherStoppedOrRunNeverBoth) {
  each_run([] {
    for (int i = 0; i < scaled(2000, 200); i++) {
      auto [c, cancel] = with_cancel(background());
      std::atomic<int> ran{0};
      auto stop = after_func(c, [&ran] { ran++; });
      std::atomic<int> stopped{0};
      WaitGroup wg;
      wg.go([&, cancel = cancel] { cancel(); });
      wg.go([&] { stopped = stop(); });
      wg.wait();
      EXPECT_TRUE(settle(1, kPatience));
      EXPECT_EQ(ran + stopped, 1);
    }
  });
}

}  // namespace
}  // namespace weft::test
