// Tasks: a result, a failure, an end that can be waited for and asked for.
#include "tests/support/support.hpp"

#include <stdexcept>
#include <string>
#include <vector>

namespace weft::test {
namespace {

using namespace std::chrono_literals;

/// Waits for ever, and says that it has begun.
struct Parked {
  Chan<void> begun = make_chan<void>(1);
  auto body() const {
    return [begun = begun] {
      begun.send();
      make_chan<int>().recv();
      return 1;
    };
  }
};

TEST(Task, GetGivesTheResult) {
  each_run([] {
    EXPECT_EQ(spawn([] { return 42; }).get(), 42);
    EXPECT_EQ(spawn([](int a, const std::string& b) { return a + static_cast<int>(b.size()); }, 1, "two").get(), 4);
    EXPECT_EQ(*spawn([] { return std::make_unique<int>(7); }).get(), 7);
    int x = 1;
    int& r = spawn([&]() -> int& { return x; }).get();
    EXPECT_EQ(&r, &x);
    bool ran = false;
    spawn([&] { ran = true; }).get();
    EXPECT_TRUE(ran);
    Task<int> named = spawn({.name = "named"}, [] { return 3; });
    EXPECT_EQ(named.get(), 3);
  });
}

TEST(Task, GetRethrowsWhatTheFunctionThrew) {
  each_run([] {
    Task<int> t = spawn([]() -> int { throw std::runtime_error("no"); });
    try {
      t.get();
      ADD_FAILURE();
    } catch (const std::runtime_error& e) {
      EXPECT_STREQ(e.what(), "no");
    }
    Task<void> p = spawn([] { panic("boom"); });
    EXPECT_EQ(panic_of([&] { p.get(); }), "boom");
  });
}

TEST(Task, AResultIsMovedOutOnce) {
  each_run([] {
    Task<int> t = spawn([] { return 1; });
    EXPECT_EQ(t.get(), 1);
    EXPECT_TRUE(t.done());
    EXPECT_EQ(panic_of([&] { t.get(); }), "weft: the result of a Task was asked for twice");
  });
}

TEST(Task, AnEmptyHandlePanics) {
  each_run([] {
    Task<int> t;
    EXPECT_FALSE(t);
    EXPECT_EQ(panic_of([&] { t.get(); }), "weft: get of an empty Task");
    EXPECT_EQ(panic_of([&] { t.wait(); }), "weft: wait of an empty Task");
    EXPECT_EQ(panic_of([&] { t.cancel(); }), "weft: cancel of an empty Task");
    EXPECT_EQ(panic_of([&] { (void)t.done(); }), "weft: done of an empty Task");
    EXPECT_EQ(panic_of([&] { select(ready(t)); }), "weft: select of an empty Task");
    t = spawn([] { return 2; });
    Task<int> u = std::move(t);
    EXPECT_FALSE(t);  // NOLINT: what is left of it
    EXPECT_EQ(u.get(), 2);
  });
}

TEST(Task, OneThatWaitsForItselfPanics) {
  each_run([] {
    auto self = std::make_shared<Task<std::string>>();
    auto go_on = make_chan<void>();
    *self = spawn([self, go_on] {
      go_on.recv();
      return panic_of([&] { self->wait(); });
    });
    go_on.send();
    EXPECT_EQ(self->get(), "weft: a task waits for itself");
  });
}

TEST(Task, OneThatGoexitEndsHasNoResult) {
  each_run([] {
    Task<int> t = spawn([]() -> int { goexit(); });
    t.wait();
    EXPECT_EQ(panic_of([&] { t.get(); }), "weft: the task has no result: goexit ended it");
  });
}

TEST(Task, WaitsHaveAllForms) {
  each_run([] {
    Parked p;
    Task<int> t = spawn(p.body());
    p.begun.recv();
    EXPECT_FALSE(t.try_wait());
    EXPECT_FALSE(t.done());
    EXPECT_FALSE(t.wait_for(1ms));
    EXPECT_FALSE(t.wait_until(now() + 1ms));
    auto [ctx, cancel] = with_timeout(background(), 1ms);
    EXPECT_EQ(t.wait(ctx), Errc::deadline_exceeded);
    EXPECT_EQ(select(ready(t), timeout(1ms)), 1);
    t.cancel();
    EXPECT_EQ(t.wait(background()), std::error_code());
    EXPECT_TRUE(t.wait_for(1s));
    t.wait();
    EXPECT_TRUE(t.try_wait());
    EXPECT_EQ(select(ready(t), timeout(kPatience)), 0);
    EXPECT_THROW(t.get(), Canceled);
  });
}

TEST(Task, DestroyingAHandleCancelsAndJoins) {
  each_run([] {
    std::atomic<bool> ended{false};
    {
      auto begun = make_chan<void>(1);
      Task<void> t = spawn([&, begun] {
        Defer d{[&] {
          for (int i = 0; i < 10; i++) yield();
          ended = true;
        }};
        begun.send();
        make_chan<int>().recv();
      });
      begun.recv();
    }
    EXPECT_TRUE(ended) << "the handle did not wait";
    {
      Task<void> t = spawn([] {});  // also one that has hardly begun
    }
    Task<void> u = spawn([&] { make_chan<int>().recv(); });
    u = Task<void>();
  });
}

TEST(Task, DestroyingAHandleJoinsWhileAnExceptionUnwinds) {
  each_run([] {
    std::atomic<bool> ended{false};
    try {
      Task<void> t = spawn([&] {
        Defer d{[&] {
          auto other = make_chan<void>();
          go([other] { other.send(); });
          other.recv();
          ended = true;
        }};
        make_chan<int>().recv();
      });
      yield();
      throw 1;
    } catch (int) {
    }
    // One that had not begun before the cancel ran all the same.
    EXPECT_TRUE(ended);
  });
}

TEST(Task, CancelEndsAWaitOrTheNextOne) {
  each_run([] {
    // Parked before, and not yet begun.
    Parked p;
    Task<int> t = spawn(p.body());
    p.begun.recv();
    t.cancel();
    EXPECT_THROW(t.get(), Canceled);
    Task<int> u = spawn([] {
      make_chan<int>().recv();
      return 1;
    });
    u.cancel();
    EXPECT_THROW(u.get(), Canceled);
    // One that needs no wait has its result.
    Task<int> v = spawn([] { return 5; });
    v.cancel();
    EXPECT_EQ(v.get(), 5);
  });
}

TEST(Task, CurrentContextIsCancelledWithIt) {
  each_run([] {
    EXPECT_EQ(current_context(), background());
    auto begun = make_chan<Context>(1);
    Task<std::error_code> t = spawn([begun] {
      const Context mine = current_context();
      EXPECT_EQ(mine, current_context());
      begun.send(mine);
      select(recv(mine.done()));
      return mine.err();
    });
    const Context its = begun.recv_or();
    EXPECT_FALSE(its.err());
    t.cancel();
    t.wait();
    EXPECT_EQ(its.err(), Errc::canceled);
  });
}

TEST(Task, GoroutinesThatItStartsAreNotItsChildren) {
  each_run([] {
    auto c = make_chan<int>();
    auto begun = make_chan<void>();
    Task<void> t = spawn([=] {
      go([=] { c.send(7); });
      begun.send();
      make_chan<int>().recv();
    });
    begun.recv();
    t.cancel();
    t.wait();
    EXPECT_EQ(c.recv(), 7);
  });
}

TEST(Task, APlainThreadBlocksInGet) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    auto c = make_chan<int>();
    Task<int> t = rt.submit([c] { return c.recv_or() + 1; });
    EXPECT_FALSE(t.wait_for(1ms));
    rt.go([c] { c.send(41); });
    EXPECT_EQ(t.get(), 42);
    Task<void> f = rt.submit({.name = "fails"}, [] { throw std::logic_error("x"); });
    EXPECT_THROW(f.get(), std::logic_error);
    { Task<void> dropped = rt.submit([] { make_chan<int>().recv(); }); }  // cancelled and joined from here
    Task<int> left = rt.submit([] {
      make_chan<int>().recv();
      return 1;
    });
    EXPECT_TRUE(rt.stop(0s).abandoned.empty());
    EXPECT_THROW(left.get(), Canceled) << "the stop has unwound it";
  }
}

TEST(Task, AHandleMayOutliveItsRuntime) {
  if (kAsan) GTEST_SKIP() << "run() drops a goroutine without a statement of its own: what it holds is lost";
  Task<int> done, lost;
  run([&] {
    done = spawn([] { return 1; });
    done.wait();
    auto begun = make_chan<void>();
    lost = spawn([begun] {
      begun.send();
      make_chan<int>().recv();
      return 1;
    });
    begun.recv();
  });
  EXPECT_EQ(done.get(), 1);
  lost.cancel();
  run([&] {
    // Descriptors are used again.
    auto c = make_chan<int>();
    Task<int> other = spawn([c] { return c.recv_or(); });
    lost.cancel();
    yield();
    c.send(4);
    EXPECT_EQ(other.get(), 4);
    lost = Task<int>();  // its goroutine was dropped: there is nobody to wait for
  });
}

TEST(Task, ReadyCasesTakeContextsToo) {
  each_run([] {
    auto [ctx, cancel] = with_cancel(background());
    int which = -1;
    EXPECT_EQ(select(ready(ctx, [&] { which = 0; }), ready(background()), otherwise([&] { which = 2; })), 2);
    cancel();
    EXPECT_EQ(select(ready(background()), ready(ctx, [&] { which = 1; })), 1);
    EXPECT_EQ(which, 1);
    Task<int> t = spawn([] { return 9; });
    Selector s;
    s.ready(background()).ready(t, [&] { which = 7; });
    EXPECT_EQ(s.wait(), 1);
    EXPECT_EQ(which, 7);
    EXPECT_EQ(t.get(), 9);
    Selector d;
    d.ready(ctx);
    EXPECT_EQ(d.try_wait(), 0);
  });
}

TEST(Task, WhatItCapturedIsGoneWhenItIsDone) {
  each_run([] {
    auto held = std::make_shared<int>(1);
    Task<void> t = spawn([held] {});
    t.wait();
    EXPECT_EQ(held.use_count(), 1);
  });
}

TEST(Task, ManyAreJoinedFromManyPlaces) {
  each_run([] {
    constexpr int kTasks = scaled(2000, 200);
    std::vector<Task<int>> tasks;
    for (int i = 0; i < kTasks; i++) tasks.push_back(spawn([i] { return i; }));
    WaitGroup wg;
    for (int w = 0; w < 4; w++)
      wg.go([&] {
        for (const Task<int>& t : tasks) t.wait();
      });
    long sum = 0;
    for (Task<int>& t : tasks) sum += t.get();
    wg.wait();
    EXPECT_EQ(sum, static_cast<long>(kTasks) * (kTasks - 1) / 2);
  });
}

}  // namespace
}  // namespace weft::test
