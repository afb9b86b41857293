// Once and its function forms, and what of WaitGroup ends a process.
#include <functional>
#include <stdexcept>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(Once, TenCallersOneRun) {  // 124
  each_run([] {
    for (int round = 0; round < scaled(200, 20); round++) {
      Once once;
      int n = 0;
      WaitGroup wg;
      for (int i = 0; i < 10; i++)
        wg.go([&] {
          once.call([&] {
            yield();
            n++;
          });
          EXPECT_EQ(n, 1) << "returned before the function has ended";
        });
      wg.wait();
      EXPECT_EQ(n, 1);
    }
  });
}

TEST(Once, APanicCountsAsDone) {  // 124
  each_run([] {
    Once once;
    EXPECT_EQ(panic_of([&] { once.call([] { panic("failed"); }); }), "failed");
    once.call([] { FAIL() << "ran twice"; });
    Once left;
    go([&] { left.call([] { goexit(); }); });
    EXPECT_TRUE(settle(1, kPatience));
    left.call([] { FAIL() << "ran twice"; });
  });
}

TEST(Once, CallersOfARunningOneWait) {
  each_run([] {
    Once once;
    Chan<void> gate = make_chan<void>();
    go_parked("chan receive", [&, gate] { once.call([=] { gate.recv(); }); });
    bool ran = false;
    go_parked("sync.Mutex.Lock", [&] { once.call([&] { ran = true; }); });
    auto [ctx, cancel] = with_cancel(background());
    go_parked("sync.Mutex.Lock", [&, ctx = ctx] { EXPECT_EQ(once.call(ctx, [&] { ran = true; }), Errc::canceled); });
    cancel();
    EXPECT_TRUE(settle(3, kPatience));
    gate.close();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_FALSE(ran);
    EXPECT_FALSE(once.call(background(), [&] { ran = true; }));
    EXPECT_FALSE(ran);
  });
}

TEST(Once, TimedCallsLimitTheWaitForAnothersRun) {
  each_run([] {
    Once once;
    Chan<void> gate = make_chan<void>();
    go_parked("chan receive", [&, gate] { EXPECT_TRUE(once.call_for(0s, [=] { gate.recv(); })) << "its own run is not cut short"; });
    bool ran = false;
    EXPECT_FALSE(once.call_for(2ms, [&] { ran = true; }));
    EXPECT_FALSE(once.call_until(now(), [&] { ran = true; }));
    go_parked("sync.Mutex.Lock", [&] { EXPECT_TRUE(once.call_for(1h, [&] { ran = true; })); });
    gate.close();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_TRUE(once.call_until(now() - 1h, [&] { ran = true; }));
    EXPECT_FALSE(ran);
  });
}

TEST(OnceFunc, TimedAndContextCallsLimitTheWaitForAnothersRun) {
  each_run([] {
    Chan<void> gate = make_chan<void>();
    auto f = once_func([=] { gate.recv(); });
    auto v = once_value([=] { return gate.recv(), 5; });
    go_parked("chan receive", [f] { f(); });
    go_parked("chan receive", [v] { EXPECT_EQ(v(), 5); });
    EXPECT_FALSE(f.call_for(2ms));
    EXPECT_EQ(v.call_for(2ms), nullptr);
    auto [ctx, cancel] = with_cancel(background());
    go_parked("sync.Mutex.Lock", [f, ctx = ctx] { EXPECT_EQ(f(ctx), Errc::canceled); });
    go_parked("sync.Mutex.Lock", [v, ctx = ctx] { EXPECT_EQ(v(ctx), nullptr); });
    cancel();
    EXPECT_TRUE(settle(3, kPatience));
    go_parked("sync.Mutex.Lock", [v] { EXPECT_EQ(*v.call_for(1h), 5); });
    gate.close();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_TRUE(f.call_for(0s));
    EXPECT_FALSE(f(background()));
    EXPECT_EQ(v(background()), &v());
    auto bad = once_func([] { panic("no"); });
    EXPECT_EQ(panic_of([&] { bad.call_for(1h); }), "no");
    EXPECT_EQ(panic_of([&] { (void)bad(background()); }), "no");
  });
}

TEST(OnceFunc, RunsOnceAndCaches) {  // 125
  each_run([] {
    int calls = 0;
    auto f = once_func([&] { calls++; });
    auto copy = f;
    f();
    copy();
    EXPECT_EQ(calls, 1);
    auto value = once_value([&] { return std::string("loaded ") + std::to_string(++calls); });
    EXPECT_EQ(value(), "loaded 2");
    auto again = value;
    EXPECT_EQ(again(), "loaded 2");
    EXPECT_EQ(&again(), &value());
    auto both = once_value([] { return std::pair(1, std::string("two")); });
    EXPECT_EQ(both().second, "two");
    std::function<void()> held = f;
    held();
    EXPECT_EQ(calls, 2);
  });
}

TEST(OnceFunc, RaisesTheSameAtEveryCall) {  // 125
  each_run([] {
    int calls = 0;
    auto f = once_func([&] {
      calls++;
      panic("x" + std::to_string(calls));
    });
    for (int i = 0; i < 3; i++) EXPECT_EQ(panic_of(f), "x1");
    EXPECT_EQ(calls, 1);
    auto value = once_value([&]() -> int { throw std::out_of_range("gone"); });
    for (int i = 0; i < 3; i++) EXPECT_THROW(value(), std::out_of_range);
    auto g = once_func([] { goexit(); });
    go([g] { g(); });
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_TRUE(runtime_panic(g));
  });
}

TEST(OnceFunc, WhatItCapturedIsReleased) {  // 125
  each_run([] {
    auto held = std::make_shared<int>(1);
    auto f = once_func([held] {});
    auto v = once_value([held] { return 1; });
    auto p = once_func([held] { panic("no"); });
    EXPECT_EQ(held.use_count(), 4);
    f();
    v();
    EXPECT_EQ(panic_of(p), "no");
    EXPECT_EQ(held.use_count(), 1);
    EXPECT_EQ(panic_of(p), "no");
  });
}

}  // namespace
}  // namespace weft::test
