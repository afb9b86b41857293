// Panic, Defer and goexit inside one process; what ends a process is in tests/crash/.
#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

struct MyError {
  int code;
};

TEST(Panic, IsAnExceptionThatCarriesItsValue) {
  each_run([] {
    try {
      panic(MyError{7});
      FAIL();
    } catch (const Panic& p) {
      ASSERT_NE(p.value<MyError>(), nullptr);
      EXPECT_EQ(p.value<MyError>()->code, 7);
      EXPECT_EQ(p.value<int>(), nullptr);
      EXPECT_FALSE(p.is_runtime_error());
    }
    EXPECT_EQ(panic_of([] { panic("index out of range"); }), "index out of range");
    EXPECT_EQ(panic_of([] { panic(std::string("a string")); }), "a string");
    EXPECT_EQ(panic_of([] { panic(42); }), "42");
    EXPECT_EQ(panic_of([] { panic(std::runtime_error("what it says")); }), "what it says");
    try {
      panic("text");
    } catch (const std::exception& e) {
      EXPECT_STREQ(e.what(), "text");
    }
    try {
      panic("text");
    } catch (const Panic& p) {
      ASSERT_NE(p.value<std::string>(), nullptr);
      EXPECT_EQ(*p.value<std::string>(), "text");
    }
  });
}

TEST(Panic, OfNilIsTheRuntimesOwn) {  // 102
  each_run([] {
    EXPECT_TRUE(runtime_panic([] { panic(nullptr); }));
    const char* none = nullptr;
    EXPECT_EQ(panic_of([&] { panic(none); }), "panic called with nil argument");
    EXPECT_EQ(panic_of([] { panic(""); }), "");
  });
}

TEST(Panic, RecoveredOneLeavesTheGoroutineUsable) {
  each_run([] {
    Chan<int> c = make_chan<int>();
    for (int i = 0; i < 100; i++)
      go([c, i] {
        try {
          panic(i);
        } catch (const Panic& p) {
          c.send(*p.value<int>());
        }
      });
    int sum = 0;
    for (int i = 0; i < 100; i++) sum += c.recv_or();
    EXPECT_EQ(sum, 4950);
  });
}

TEST(Defer, RunsInReverseOrderOnReturn) {  // 112
  each_run([] {
    std::string order;
    {
      Defer a{[&] { order += 'a'; }};
      Defer b{[&] { order += 'b'; }};
      if (order.empty()) {
        Defer c{[&] { order += 'c'; }};
      }
      Defer d{[&] { order += 'd'; }};
    }
    EXPECT_EQ(order, "cdba");
  });
}

TEST(Defer, RunsOnPanicAndManyTimesInALoop) {  // 112
  each_run([] {
    int runs = 0;
    EXPECT_EQ(panic_of([&] {
                std::vector<std::unique_ptr<Defer<std::function<void()>>>> many;
                for (int i = 0; i < 1000; i++)
                  many.push_back(std::make_unique<Defer<std::function<void()>>>([&] { runs++; }));
                panic("in the middle");
              }),
              "in the middle");
    EXPECT_EQ(runs, 1000);
    // One that panics itself after a normal return: the others still run.
    std::string order;
    EXPECT_EQ(panic_of([&] {
                Defer a{[&] { order += 'a'; }};
                Defer b{[&] { panic("from b"); }};
                Defer c{[&] { order += 'c'; }};
              }),
              "from b");
    EXPECT_EQ(order, "ca");
    // A panic recovered inside a deferred call during another panic leaves the first alone.
    EXPECT_EQ(panic_of([&] {
                Defer d{[&] { EXPECT_EQ(panic_of([] { panic("inner"); }), "inner"); }};
                panic("outer");
              }),
              "outer");
  });
}

TEST(Goexit, RunsDefersAndDestructorsAndEndsTheGoroutine) {  // 93, 115
  each_run([] {
    Chan<std::string> said = make_chan<std::string>(1);
    std::atomic<bool> after{false};
    go([said, &after] {
      struct Tell {
        Chan<std::string> c;
        std::string text;
        ~Tell() { c.send(text); }
      } tell{said, ""};
      Defer a{[&] { tell.text += 'a'; }};
      [&] {
        Defer b{[&] { tell.text += 'b'; }};
        goexit();
      }();
      after = true;
    });
    EXPECT_EQ(said.recv(), "ba");
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_FALSE(after.load());
  });
}

TEST(Goexit, IsNoExceptionThatAHandlerSees) {  // 93
  each_run([] {
    std::atomic<int> seen{0};
    Chan<void> done = make_chan<void>(1);
    go([&seen, done] {
      Defer d{[&] { done.send(); }};
      try {
        try {
          goexit();
        } catch (const Panic&) {
          seen++;
        } catch (const std::exception&) {
          seen++;
        }
        seen++;
      } catch (...) {
        throw;  // as a handler that must let go of something does
      }
      seen++;
    });
    done.recv();
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_EQ(seen.load(), 0);
  });
}

// A handler that keeps what it caught, and one that rethrows from there, let goexit through. What
// they kept may go later, on any thread.
TEST(Goexit, MayBeKeptByAHandlerThatRethrows) {  // 93
  std::exception_ptr kept[2];
  each_run([&] {
    std::atomic<int> after{0}, destroyed{0};
    struct Count {
      std::atomic<int>& n;
      ~Count() { n++; }
    };
    go([&] {
      Count c{destroyed};
      try {
        goexit();
      } catch (...) {
        kept[0] = std::current_exception();
        throw;
      }
      after++;
    });
    go([&] {
      Count c{destroyed};
      try {
        goexit();
      } catch (...) {
        kept[1] = std::current_exception();
      }
      yield();
      std::rethrow_exception(kept[1]);
    });
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_EQ(after.load(), 0);
    EXPECT_EQ(destroyed.load(), 2);
    EXPECT_TRUE(kept[0] && kept[1]);
    kept[0] = nullptr;
  });
  kept[1] = nullptr;
}

TEST(Goexit, FromADeepCallAndAfterARecoveredPanic) {  // 96
  each_run([] {
    std::atomic<int> destroyed{0};
    struct Count {
      std::atomic<int>& n;
      ~Count() { n++; }
    };
    struct Deep {
      static void go_down(int n, std::atomic<int>& d) {
        Count c{d};
        if (n == 0) goexit();
        if (n > 0) go_down(n - 1, d);
      }
    };
    go([&] {
      EXPECT_EQ(panic_of([] { panic("first"); }), "first");
      Deep::go_down(99, destroyed);
    });
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_EQ(destroyed.load(), 100);
    // A panic in a deferred call during goexit that is recovered there: goexit goes on and the
    // goroutine ends.
    std::atomic<bool> after{false};
    go([&] {
      {
        Defer d{[] { EXPECT_EQ(panic_of([] { panic("during goexit"); }), "during goexit"); }};
        goexit();
      }
      after = true;
    });
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_FALSE(after.load());
  });
}

TEST(Goexit, LocksAndWaitGroupsAreLetGo) {
  each_run([] {
    Mutex mu;
    WaitGroup wg;
    for (int i = 0; i < 50; i++)
      wg.go([&] {
        std::lock_guard l{mu};
        if (goid() % 2) yield();
        goexit();
      });
    wg.wait();
    EXPECT_TRUE(mu.try_lock());
    mu.unlock();
  });
}

TEST(Panic, PassesThroughFunctionsOfTheRuntime) {
  each_run([] {
    // A handler of select, a body of blocking() and the start of an await may throw.
    Chan<int> c = make_chan<int>(1);
    c.send(1);
    EXPECT_EQ(panic_of([&] { select(recv(c, [](std::optional<int>) { panic("handler"); })); }),
              "handler");
    EXPECT_EQ(panic_of([] { blocking([] { panic("blocking"); }); }), "blocking");
    EXPECT_EQ(panic_of([] { (void)await<int>([](Resume<int>) { panic("await"); }); }), "await");
  });
}

TEST(Await, ReturnsWhatTheFirstCallbackGives) {
  each_run([] {
    std::thread other;
    const int n = await<int>([&](Resume<int> done) {
      other = std::thread([done] {
        done(5);
        done(6);
      });
    });
    EXPECT_EQ(n, 5);
    other.join();
    await<void>([](Resume<void> done) { done(); });
    const std::string s =
        await<std::string>([](Resume<std::string> done) { go([done] { done("later"); }); });
    EXPECT_EQ(s, "later");
    std::unique_ptr<int> p = await<std::unique_ptr<int>>(
        [](Resume<std::unique_ptr<int>> done) { done(std::make_unique<int>(3)); });
    EXPECT_EQ(*p, 3);
  });
}

TEST(Await, ALimitedWaitEndsAndALateCallbackIsIgnored) {
  each_run([] {
    auto value = std::make_shared<int>(7);
    std::vector<Resume<std::shared_ptr<int>>> late;
    auto keep = [&](Resume<std::shared_ptr<int>> done) { late.push_back(done); };
    EXPECT_FALSE(await_for<std::shared_ptr<int>>(2ms, keep).has_value());
    EXPECT_FALSE(await_until<std::shared_ptr<int>>(now() - 1h, keep).has_value());
    auto [ctx, cancel] = with_cancel(background());
    go_parked("await", [&, ctx = ctx] { EXPECT_FALSE(await<std::shared_ptr<int>>(ctx, keep).has_value()); });
    cancel();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_FALSE(await<void>(ctx, [](Resume<void>) { FAIL() << "its context was done"; }));
    ASSERT_EQ(late.size(), 3u);
    for (auto& done : late) done(value);
    late.clear();
    EXPECT_EQ(value.use_count(), 1) << "late values are gone";
    std::thread other;
    EXPECT_EQ(await_for<int>(1h, [&](Resume<int> done) { other = std::thread([done] { done(5); }); }), 5);
    other.join();
    EXPECT_TRUE(await<void>(background(), [](Resume<void> done) { done(); }));
    EXPECT_TRUE(await_for<void>(0s, [](Resume<void> done) { done(); })) << "what has happened is no matter of time";
    EXPECT_NE(panic_of([] { (void)await_for<int>(1h, [](Resume<int>) {}); }), "no panic");
  });
}

// One of them ends the wait: the value is the caller's or destroyed, and whoever loses touches nothing that is gone.
TEST(Await, CancelsRaceWithTheCallback) {
  each_run([] {
    auto value = std::make_shared<int>(7);
    for (int i = 0; i < scaled(3000, 300); i++) {
      const CancelContext c = with_cancel(background());
      std::optional<std::shared_ptr<int>> got = await<std::shared_ptr<int>>(c.ctx, [&](Resume<std::shared_ptr<int>> done) {
        go([cancel = c.cancel] { cancel(); });
        go([done, value]() mutable { done(std::move(value)); });
      });
      if (got) {
        EXPECT_EQ(**got, 7);
      }
      got.reset();
      EXPECT_TRUE(settle(1, kPatience));
      EXPECT_EQ(value.use_count(), 1);
    }
  });
}

TEST(Await, PanicsWhenTheLastHandleDiesUncalled) {
  each_run([] {
    EXPECT_NE(panic_of([] { (void)await<int>([](Resume<int>) {}); }), "no panic");
    std::thread other;
    EXPECT_NE(panic_of([&] {
                (void)await<int>([&](Resume<int> r) { other = std::thread([r] { (void)r; }); });
              }),
              "no panic");
    other.join();
  });
}

}  // namespace
}  // namespace weft::test
