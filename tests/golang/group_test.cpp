// ErrGroup, Singleflight and SyncMap.
#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

std::error_code failed(int code) { return {code, std::generic_category()}; }

TEST(ErrGroup, ZeroGroupGivesTheFirstError) {  // 177
  each_run([] {
    {
      ErrGroup none;
      EXPECT_FALSE(none.wait());
      EXPECT_TRUE(none.context() == background());
    }
    for (const std::vector<int>& codes : {std::vector<int>{0}, {0, 1}, {0, 1, 2}, {0, 0, 3}}) {
      ErrGroup g;
      int first = 0;
      for (int code : codes) {
        g.go([code] { return failed(code); });
        if (first == 0) first = code;
        EXPECT_EQ(g.wait().value(), first) << "wait() may be called after each";
      }
    }
    ErrGroup g;
    std::atomic<int> ran{0};
    for (int i = 0; i < 100; i++) g.go([&] { ran++; });
    EXPECT_FALSE(g.wait());
    EXPECT_EQ(ran.load(), 100);
  });
}

TEST(ErrGroup, AFailureCancelsTheContextWithItAsTheCause) {  // 177
  each_run([] {
    ErrGroup g{background()};
    Chan<void> seen = make_chan<void>();
    g.go([=](Context c) -> std::error_code {
      c.done().recv();
      try {
        std::rethrow_exception(c.cause());
      } catch (const std::system_error& e) {
        EXPECT_EQ(e.code(), failed(7));
      }
      seen.send();
      return failed(9);
    });
    g.go([](const Context&) { return failed(7); });
    seen.recv();
    EXPECT_EQ(g.wait(), failed(7));
    EXPECT_EQ(g.context().err(), Errc::canceled);
  });
}

TEST(ErrGroup, WaitAlwaysCancelsTheContext) {  // 177
  each_run([] {
    ErrGroup g{background()};
    g.go([] {});
    EXPECT_FALSE(g.context().err());
    EXPECT_FALSE(g.wait());
    EXPECT_EQ(g.context().err(), Errc::canceled);
    auto [parent, cancel] = with_cancel(background());
    ErrGroup below{parent};
    below.go([](Context c) { return c.done().recv(), c.err(); });
    cancel();
    EXPECT_EQ(below.wait(), Errc::canceled);
  });
}

TEST(ErrGroup, RethrowsWhatFailedByException) {
  each_run([] {
    {
      ErrGroup g{background()};
      g.go([] { throw std::out_of_range("gone"); });
      EXPECT_THROW(g.wait(), std::out_of_range);
      EXPECT_THROW(std::rethrow_exception(g.context().cause()), std::out_of_range);
    }
    {
      ErrGroup g;
      g.go([] { panic("worker"); });
      EXPECT_EQ(panic_of([&] { (void)g.wait(); }), "worker");
    }
    {
      ErrGroup g;  // goexit is no failure, and is counted
      g.set_limit(1);
      for (int i = 0; i < 10; i++) g.go([] { goexit(); });
      EXPECT_FALSE(g.wait());
    }
  });
}

TEST(ErrGroup, TheLimitIsNeverExceeded) {  // 177
  each_run([] {
    constexpr int kLimit = 10;
    ErrGroup g;
    g.set_limit(kLimit);
    std::atomic<int> active{0};
    for (int i = 0; i < scaled(1000, 100); i++)
      g.go([&] {
        EXPECT_LE(++active, kLimit);
        yield();
        active--;
      });
    EXPECT_FALSE(g.wait());
  });
}

TEST(ErrGroup, TryGoAndTheLimit) {  // 177
  each_run([] {
    ErrGroup g;
    Chan<void> gate = make_chan<void>();
    g.set_limit(2);
    EXPECT_TRUE(g.try_go([=] { gate.recv(); }));
    g.go([=] { gate.recv(); });
    EXPECT_FALSE(g.try_go([] { FAIL() << "beyond the limit"; }));
    EXPECT_EQ(panic_of([&] { g.set_limit(3); }),
              "errgroup: modify limit while 2 goroutines in the group are still active");
    std::atomic<bool> third{false};
    go_parked("semacquire", [&] { g.go([&] { third = true; }); });
    EXPECT_FALSE(third.load());
    gate.close();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_FALSE(g.wait());
    EXPECT_TRUE(third.load());
    g.set_limit(0);
    EXPECT_FALSE(g.try_go([] { FAIL() << "nothing can start"; }));
    g.set_limit(-1);
    for (int i = 0; i < 100; i++) EXPECT_TRUE(g.try_go([] {}));
    EXPECT_FALSE(g.wait());
  });
}

TEST(ErrGroup, ALimitedWaitLeavesTheGroupAsItIs) {
  each_run([] {
    ErrGroup g{background()};
    Chan<void> gate = make_chan<void>();
    EXPECT_TRUE(g.try_wait());
    g.go([=] { return gate.recv(), failed(3); });
    EXPECT_FALSE(g.try_wait());
    EXPECT_FALSE(g.wait_for(2ms).has_value());
    EXPECT_FALSE(g.wait_until(now()).has_value());
    auto [ctx, cancel] = with_cancel(background());
    go_parked("sync.WaitGroup.Wait", [&, ctx = ctx] { EXPECT_FALSE(g.wait(ctx).has_value()); });
    cancel();
    EXPECT_TRUE(settle(2, kPatience));
    EXPECT_FALSE(g.wait(ctx).has_value()) << "one that is done fails at once";
    EXPECT_FALSE(g.context().err()) << "who gives up cancels nothing";
    gate.close();
    EXPECT_EQ(g.wait_for(1h), failed(3));
    EXPECT_TRUE(g.try_wait());
    EXPECT_EQ(g.context().err(), Errc::canceled) << "as wait() does";
    EXPECT_EQ(g.wait(background()), failed(3));
    EXPECT_EQ(g.wait_until(now() - 1h), failed(3)) << "what has happened is no matter of time";
    ErrGroup thrown;
    thrown.go([] { throw std::out_of_range("gone"); });
    EXPECT_THROW(thrown.wait_for(1h), std::out_of_range);
    EXPECT_THROW(thrown.wait(background()), std::out_of_range);
  });
}

TEST(ErrGroup, ALimitedGoDoesNotStartWhatItHasNoRoomFor) {
  each_run([] {
    ErrGroup g;
    Chan<void> gate = make_chan<void>();
    g.set_limit(1);
    EXPECT_FALSE(g.go(background(), [=] { gate.recv(); }));
    EXPECT_FALSE(g.try_go_for(2ms, [] { FAIL() << "beyond the limit"; }));
    EXPECT_FALSE(g.try_go_until(now(), [] { FAIL() << "beyond the limit"; }));
    auto [ctx, cancel] = with_cancel(background());
    std::unique_ptr<int> kept = std::make_unique<int>(1);
    auto f = [kept = std::move(kept)] { FAIL() << "its context was done"; };
    go_parked("semacquire", [&, ctx = ctx] { EXPECT_EQ(g.go(ctx, std::move(f)), Errc::canceled); });
    cancel();
    EXPECT_TRUE(settle(2, kPatience));
    std::atomic<int> ran{0};
    go_parked("semacquire", [&] { EXPECT_TRUE(g.try_go_for(1h, [&] { ran++; })); });
    go_parked("semacquire", [&] { EXPECT_FALSE(g.go(background(), [&] { ran++; })); });
    gate.close();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(ran.load(), 2);
    EXPECT_EQ(g.go(ctx, [] { FAIL() << "its context was done"; }), Errc::canceled);
    EXPECT_FALSE(g.wait());
    ErrGroup open;  // without a limit nothing waits, and a context that is done starts nothing all the same
    EXPECT_EQ(open.go(ctx, [] { FAIL() << "its context was done"; }), Errc::canceled);
    EXPECT_TRUE(open.try_go_for(0s, [&] { ran++; }));
    EXPECT_TRUE(open.try_go_until(now() - 1h, [&] { ran++; }));
    EXPECT_FALSE(open.wait());
    EXPECT_EQ(ran.load(), 4);
  });
}

TEST(ErrGroup, AFunctionThatThrowsWhenMovedKeepsNoPlace) {
  struct Heavy {
    bool armed = true;
    Heavy() = default;
    Heavy(const Heavy& o) : armed(o.armed) {
      if (armed) throw std::runtime_error("heavy");
    }
    void operator()() const {}
  };
  each_run([] {
    ErrGroup g;
    g.set_limit(1);
    Heavy h;
    for (int i = 0; i < 3; i++) EXPECT_THROW(g.go(h), std::runtime_error);
    h.armed = false;
    EXPECT_TRUE(g.try_go(h));
    EXPECT_FALSE(g.wait());
  });
}

TEST(ErrGroup, MayBeDestroyedAsSoonAsWaitHasReturned) {
  each_run([] {
    for (int i = 0; i < scaled(2000, 200); i++) {
      auto g = std::make_unique<ErrGroup>();
      if (i % 2) g->set_limit(2);
      for (int k = 0; k < 4; k++)
        g->go([k] {
          if (k % 2) yield();
        });
      (void)g->wait();
      g.reset();
    }
  });
}

// ---- Singleflight --------------------------------------------------------------------------------

TEST(Singleflight, DuplicatesShareOneRun) {  // 179
  each_run([] {
    Singleflight<std::string, std::string> flight;
    EXPECT_EQ(flight.run("key", [] { return "alone"; }).value, "alone");
    EXPECT_FALSE(flight.run("key", [] { return "alone"; }).shared);
    Chan<void> gate = make_chan<void>();
    std::atomic<int> calls{0}, shared{0};
    auto load = [&] {
      calls++;
      gate.recv();
      return std::string("together");
    };
    auto ask = [&] {
      auto r = flight.run("key", load);
      EXPECT_EQ(r.value, "together");
      shared += r.shared;
    };
    go_parked("chan receive", ask);
    for (int i = 0; i < 9; i++) go_parked("latch wait", ask);
    EXPECT_EQ(flight.run("other", [] { return "other"; }).value, "other");
    gate.close();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(calls.load(), 1);
    EXPECT_EQ(shared.load(), 10);
  });
}

TEST(Singleflight, WhatItThrowsIsRaisedInAll) {  // 179
  each_run([] {
    Singleflight<int, int> flight;
    Chan<void> gate = make_chan<void>();
    std::atomic<int> raised{0};
    auto ask = [&] {
      try {
        flight.run(1, [&]() -> int {
          gate.recv();
          panic("once for all");
        });
      } catch (const Panic& p) {
        raised += std::string(p.what()) == "once for all";
      }
    };
    go_parked("chan receive", ask);
    go_parked("latch wait", ask);
    go_parked("latch wait", ask);
    gate.close();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(raised.load(), 3);
    EXPECT_THROW(flight.run(1, []() -> int { throw std::out_of_range("x"); }), std::out_of_range);
    EXPECT_EQ(flight.run(1, [] { return 5; }).value, 5);
  });
}

TEST(Singleflight, GoexitEndsAll) {  // 179
  each_run([] {
    Singleflight<int, int> flight;
    Chan<void> gate = make_chan<void>();
    std::atomic<int> ended{0};
    auto ask = [&] {
      Defer d{[&] { ended++; }};
      flight.run(1, [&]() -> int {
        gate.recv();
        goexit();
      });
      FAIL() << "went on";
    };
    go_parked("chan receive", ask);
    go_parked("latch wait", ask);
    gate.close();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(ended.load(), 2);
    EXPECT_EQ(flight.run(1, [] { return 5; }).value, 5);
  });
}

TEST(Singleflight, ForgetLetsTheNextRun) {  // 179
  each_run([] {
    Singleflight<std::string, int> flight;
    Chan<void> gate = make_chan<void>();
    go_parked("chan receive", [&] {
      EXPECT_EQ(flight.run("k", [&] { return gate.recv(), 1; }).value, 1);
    });
    flight.forget("k");
    EXPECT_EQ(flight.run("k", [] { return 2; }).value, 2);
    go_parked("chan receive", [&] {
      EXPECT_EQ(flight.run("k", [&] { return gate.recv(), 3; }).value, 3);
    });
    // The forgotten one lands: it must not take the entry of the one after it.
    gate.send();
    EXPECT_TRUE(settle(2, kPatience));
    go_parked("latch wait", [&] { EXPECT_EQ(flight.run("k", [] { return 4; }).value, 3); });
    gate.send();
    EXPECT_TRUE(settle(1, kPatience));
  });
}

TEST(Singleflight, RunChan) {  // 179
  each_run([] {
    using Flight = Singleflight<std::string, int>;
    Flight flight;
    Chan<void> gate = make_chan<void>();
    RecvChan<Flight::Report> a = flight.run_chan("k", [=] { return gate.recv(), 1; });
    RecvChan<Flight::Report> b = flight.run_chan("k", [] { return 2; });
    gate.close();
    for (const auto& c : {a, b}) {
      Flight::Report r = *c.recv();
      EXPECT_EQ(r.value, 1);
      EXPECT_TRUE(r.shared);
    }
    Flight::Report bad = *flight.run_chan("k", []() -> int { throw std::out_of_range("x"); }).recv();
    EXPECT_FALSE(bad.value);
    EXPECT_THROW(std::rethrow_exception(bad.raised), std::out_of_range);
    RecvChan<Flight::Report> never = flight.run_chan("k", []() -> int { goexit(); });
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(never.try_recv().status, RecvStatus::Empty);
  });
}

TEST(Singleflight, WhoLeavesEarlyTakesNothingFromTheOthers) {
  each_run([] {
    Singleflight<std::string, int> flight;
    Chan<void> gate = make_chan<void>();
    std::atomic<int> calls{0}, got{0};
    auto load = [&, gate] {
      calls++;
      gate.recv();
      return 7;
    };
    auto [ctx, cancel] = with_cancel(background());
    // The first leaves too: its function runs on in a goroutine of its own.
    go_parked("latch wait", [&, ctx = ctx] { EXPECT_FALSE(flight.run(ctx, "k", load).has_value()); });
    go_parked("latch wait", [&, ctx = ctx] { EXPECT_FALSE(flight.run(ctx, "k", load).has_value()); });
    EXPECT_FALSE(flight.run_for("k", 2ms, load).has_value());
    EXPECT_FALSE(flight.run_until("k", now(), load).has_value());
    go_parked("latch wait", [&] { got += flight.run("k", load).value; });
    go_parked("latch wait", [&] { got += flight.run_for("k", 1h, load)->value; });
    go_parked("latch wait", [&] { got += flight.run(background(), "k", load)->value; });
    cancel();
    EXPECT_TRUE(settle(5, kPatience));
    EXPECT_FALSE(flight.run(ctx, "other", [] { return ADD_FAILURE() << "its context was done", 1; }).has_value());
    gate.close();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(calls.load(), 1);
    EXPECT_EQ(got.load(), 21);
    auto alone = flight.run_for("k", 1h, [] { return 1; });
    EXPECT_TRUE(alone && alone->value == 1 && !alone->shared);
  });
}

TEST(Singleflight, LimitedFormsRaiseWhatWasThrownAndEndWithGoexit) {
  each_run([] {
    Singleflight<int, int> flight;
    EXPECT_THROW(flight.run_for(1, 1h, []() -> int { throw std::out_of_range("x"); }), std::out_of_range);
    EXPECT_EQ(panic_of([&] { flight.run(background(), 1, []() -> int { panic("no"); }); }), "no");
    std::atomic<bool> ended{false};
    go([&] {
      Defer d{[&] { ended = true; }};
      flight.run_for(1, 1h, []() -> int { goexit(); });
      FAIL() << "went on";
    });
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_TRUE(ended);
  });
}

// ---- SyncMap -------------------------------------------------------------------------------------

TEST(SyncMap, MatchesAModelUnderRandomOperations) {  // 128
  each_run([] {
    std::minstd_rand rng(11);
    SyncMap<int, int> m;
    std::map<int, int> model;
    auto at = [&](int k) {
      auto it = model.find(k);
      return it == model.end() ? std::nullopt : std::optional<int>(it->second);
    };
    for (int i = 0; i < scaled(20'000, 2'000); i++) {
      const int k = static_cast<int>(rng() % 40), v = static_cast<int>(rng() % 5), w = static_cast<int>(rng() % 5);
      switch (rng() % 9) {
        case 0: EXPECT_EQ(m.load(k), at(k)); break;
        case 1:
          m.store(k, v);
          model[k] = v;
          break;
        case 2: {
          auto r = m.load_or_store(k, v);
          EXPECT_EQ(r.loaded, at(k).has_value());
          EXPECT_EQ(r.value, model.try_emplace(k, v).first->second);
          break;
        }
        case 3:
          EXPECT_EQ(m.load_and_delete(k), at(k));
          model.erase(k);
          break;
        case 4:
          m.erase(k);
          model.erase(k);
          break;
        case 5:
          EXPECT_EQ(m.swap(k, v), at(k));
          model[k] = v;
          break;
        case 6: {
          const bool same = at(k) == std::optional<int>(w);
          EXPECT_EQ(m.compare_and_swap(k, w, v), same);
          if (same) model[k] = v;
          break;
        }
        case 7: {
          const bool same = at(k) == std::optional<int>(w);
          EXPECT_EQ(m.compare_and_delete(k, w), same);
          if (same) model.erase(k);
          break;
        }
        default:
          if (rng() % 50 == 0) {
            m.clear();
            model.clear();
          }
          std::map<int, int> seen;
          m.range([&](int key, int value) { EXPECT_TRUE(seen.emplace(key, value).second); });
          EXPECT_EQ(seen, model);
      }
    }
  });
}

TEST(SyncMap, RangeBesideWritersSeesEachKeyOnceAndOnlyWhatWasThere) {  // 128
  each_run([] {
    constexpr int kKeys = scaled(500, 100);
    SyncMap<int, int> m;
    for (int k = 1; k <= kKeys; k++) m.store(k, k);
    std::atomic<bool> stop{false};
    WaitGroup wg;
    for (int g = 1; g <= 2; g++)
      wg.go([&, g] {
        for (int i = 0; !stop; i++) {
          for (int k = 1; k <= kKeys; k++) {
            m.store(k, k * (i % 100 + g));
            if (k % 3 == 0) m.erase(kKeys + k), m.store(kKeys + k, kKeys + k);
          }
          yield();
        }
      });
    for (int i = 0; i < 30; i++) {
      std::vector<int> seen(static_cast<size_t>(2 * kKeys) + 1);
      m.range([&](int k, int v) {
        EXPECT_EQ(v % k, 0);
        EXPECT_EQ(seen[static_cast<size_t>(k)]++, 0);
      });
      for (int k = 1; k <= kKeys; k++) EXPECT_EQ(seen[static_cast<size_t>(k)], 1);
      yield();
    }
    stop = true;
    wg.wait();
  });
}

// As Go's TestMapRangeNestedCall.
TEST(SyncMap, NestedRangeAndDeletesWithinIt) {  // 128
  each_run([] {
    SyncMap<std::string, int> m;
    for (int i = 0; i < 5; i++) m.store("key" + std::to_string(i), i);
    int outer = 0, inner = 0;
    m.range([&](const std::string& key, int) {
      outer++;
      m.range([&](const std::string& k, int v) {
        inner++;
        EXPECT_EQ(m.load(k), v);
        EXPECT_FALSE(m.load_or_store("42", 1).loaded);
        m.store("42", 2);
        EXPECT_EQ(m.load_and_delete("42"), 2);
        return true;
      });
      m.erase(key);
      return true;
    });
    EXPECT_EQ(outer, 5);
    EXPECT_EQ(inner, 5 + 4 + 3 + 2 + 1);
    m.range([](const std::string&, int) { FAIL() << "something is left"; });
    m.store("a", 1);
    m.store("b", 2);
    int calls = 0;
    m.range([&](const std::string&, int) {
      calls++;
      return false;
    });
    EXPECT_EQ(calls, 1) << "false stops it";
  });
}

}  // namespace
}  // namespace weft::test
