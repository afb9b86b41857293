// Contexts: the tree, causes, deadlines, values, functions and parents of the user's own kind. Numbers
// are those of the conformance checklist.
#include <time.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <random>
#include <stdexcept>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

bool is_done(const Context& c) { return c.done().try_recv().status == RecvStatus::Closed; }

std::string why(const std::exception_ptr& e) {
  if (!e) return "none";
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return x.what();
  }
}

// Done and err() are one event, and cause() follows.
void expect_live(const Context& c) {
  EXPECT_FALSE(is_done(c));
  EXPECT_FALSE(c.err());
  EXPECT_EQ(c.cause(), nullptr);
}
void expect_ended(const Context& c, Errc e = Errc::canceled, const std::string& cause = "") {
  EXPECT_TRUE(is_done(c));
  EXPECT_EQ(c.err(), e);
  EXPECT_EQ(why(c.cause()), cause.empty() ? c.err().message() : cause);
}

struct Mistake : std::runtime_error {
  using runtime_error::runtime_error;
};

TEST(Context, BackgroundAndTodo) {  // 130
  each_run([] {
    EXPECT_EQ(to_string(background()), "context.Background");
    EXPECT_EQ(to_string(todo()), "context.TODO");
    for (const Context& c : {background(), todo()}) {
      EXPECT_FALSE(c.done());
      EXPECT_FALSE(c.err());
      EXPECT_FALSE(c.deadline());
      EXPECT_EQ(c.cause(), nullptr);
    }
    EXPECT_FALSE(background() == todo());
    static const ContextKey<std::string> kUser{"user"};
    auto [c, cancel] = with_cancel(with_value(background(), kUser, "ada"));
    EXPECT_EQ(to_string(c), "context.Background.WithValue(user, ada).WithCancel");
    EXPECT_EQ(to_string(without_cancel(c)), to_string(c) + ".WithoutCancel");
    auto [d, stop] = with_timeout(todo(), 1h);
    EXPECT_EQ(to_string(d).rfind("context.TODO.WithDeadline([", 0), 0u) << to_string(d);
  });
}

TEST(Context, ANilParentPanicsInEveryConstructor) {
  each_run([] {
    const std::string nil_parent = "cannot create context from nil parent";
    static const ContextKey<int> kInt{"int"};
    EXPECT_EQ(panic_of([] { (void)with_cancel(nullptr); }), nil_parent);
    EXPECT_EQ(panic_of([] { (void)with_cancel_cause(Context()); }), nil_parent);
    EXPECT_EQ(panic_of([] { (void)with_timeout(nullptr, 1s); }), nil_parent);
    EXPECT_EQ(panic_of([] { (void)with_deadline(nullptr, now()); }), nil_parent);
    EXPECT_EQ(panic_of([] { (void)with_value(nullptr, kInt, 1); }), nil_parent);
    EXPECT_EQ(panic_of([] { (void)without_cancel(nullptr); }), nil_parent);
    EXPECT_EQ(panic_of([] { after_func(Context(), [] {}); }), nil_parent);
    EXPECT_TRUE(runtime_panic([] { (void)Context().err(); }));
    EXPECT_TRUE(runtime_panic([] { CancelFunc()(); }));
  });
}

TEST(Context, CancelEndsDescendantsAndNobodyElse) {  // 131
  each_run([] {
    auto [root, cancel_root] = with_cancel(background());
    auto [a, cancel_a] = with_cancel(root);
    auto [b, cancel_b] = with_cancel(root);
    auto [a1, cancel_a1] = with_cancel(a);
    auto [a2, cancel_a2] = with_timeout(a, 1h);
    cancel_a1();
    expect_ended(a1);
    for (const Context& c : {root, a, b, a2}) expect_live(c);
    cancel_a();
    cancel_a();
    for (const Context& c : {a, a1, a2}) expect_ended(c);
    for (const Context& c : {root, b}) expect_live(c);
    auto [late, cancel_late] = with_cancel(a);
    expect_ended(late);
    std::thread([&, &cancel_root = cancel_root] { cancel_root(); }).join();
    for (const Context& c : {root, b}) expect_ended(c);
  });
}

TEST(Context, DoneIsTheSameChannelBeforeAndAfter) {
  each_run([] {
    auto [c, cancel] = with_cancel(background());
    const RecvChan<void> before = c.done();
    EXPECT_TRUE(before == c.done());
    static const ContextKey<int> kInt{"int"};
    EXPECT_TRUE(with_value(c, kInt, 1).done() == before);
    cancel();
    EXPECT_TRUE(before == c.done());
    auto [d, cancel_d] = with_cancel(background());
    cancel_d();
    EXPECT_TRUE(is_done(d));
    EXPECT_TRUE(d.done() == d.done());
  });
}

TEST(Context, ErrIsSetExactlyWhenDoneIsClosed) {
  each_run([] {
    for (int i = 0; i < scaled(3000, 300); i++) {
      auto [c, cancel] = with_cancel(background());
      if (i % 2) (void)c.done();
      WaitGroup wg;
      for (int k = 0; k < 2; k++)
        wg.go([&, k, c = c] {
          for (;;) {
            if (k == 0 ? bool(c.err()) : is_done(c)) {
              EXPECT_TRUE(c.err());
              EXPECT_TRUE(is_done(c));
              EXPECT_NE(c.cause(), nullptr);
              return;
            }
            yield();
          }
        });
      wg.go([&, cancel = cancel] { cancel(); });
      wg.wait();
    }
  });
}

TEST(Context, AChildThatEndsLeavesItsParent) {  // 132
  each_run([] {
    auto [root, cancel_root] = with_cancel(background());
    auto weak = std::make_shared<int>(0);
    static const ContextKey<std::shared_ptr<int>> kHeld{"held"};
    for (int i = 0; i < 100; i++) {
      auto [c, cancel] = with_cancel(with_value(root, kHeld, weak));
      cancel();
    }
    EXPECT_EQ(weak.use_count(), 1) << "ended children are still held";
    for (int i = 0; i < 100; i++) {
      auto [c, cancel] = with_timeout(with_value(root, kHeld, weak), 1h);
      cancel();
    }
    EXPECT_EQ(weak.use_count(), 1) << "a stopped timer still holds its context";
    for (int i = 0; i < 10; i++) {
      auto [c, cancel] = with_cancel(with_value(root, kHeld, weak));
      after_func(c, [weak] {})();
      after_func(root, [weak] {})();
    }
    EXPECT_EQ(weak.use_count(), 1) << "a stopped function is still held";
    for (int i = 0; i < 10; i++) {
      auto [c, cancel] = with_cancel(with_value(root, kHeld, weak));
      cancel.detach();
      after_func(c, [] {})();
    }
    EXPECT_EQ(weak.use_count(), 1) << "a stopped function still holds its context";
    auto [c, cancel] = with_cancel(root);
    cancel_root();
    expect_ended(c);
  });
}

TEST(Context, ADetachedChildThatIsDroppedLeavesItsParent) {  // 132
  each_run([] {
    auto [root, cancel] = with_cancel(background());
    for (int i = 0; i < 100; i++) with_cancel(root).cancel.detach();
    // Where those were: a parent that still had them in its list would end these.
    std::vector<CancelContext> others;
    for (int i = 0; i < 100; i++) others.push_back(with_cancel(background()));
    cancel();
    for (auto& o : others) expect_live(o.ctx);
  });
}

TEST(Context, Deadlines) {  // 133, 140
  each_run([] {
    const Time before = now();
    auto [c, cancel] = with_timeout(background(), 5ms);
    auto [inner, cancel_inner] = with_timeout(c, 1h);  // the parent's governs
    EXPECT_EQ(inner.deadline(), c.deadline());
    auto [o, cancel_o] = with_cancel(inner);
    EXPECT_EQ(o.deadline(), c.deadline());
    o.done().recv();
    EXPECT_GE(now() - before, 5ms);
    expect_ended(c, Errc::deadline_exceeded);
    expect_ended(inner, Errc::deadline_exceeded);
    expect_ended(o, Errc::deadline_exceeded);
    EXPECT_EQ(o.err(), std::errc::timed_out);
    EXPECT_EQ(o.err().message(), "context deadline exceeded");
    // An earlier one below a later one.
    auto [outer, cancel_outer] = with_deadline(background(), now() + 1h);
    auto [early, cancel_early] = with_timeout(outer, 1ms);
    EXPECT_LT(*early.deadline(), *outer.deadline());
    early.done().recv();
    expect_ended(early, Errc::deadline_exceeded);
    expect_live(outer);
    // Past, zero and overflowing ones.
    for (Context past : {with_deadline(background(), now() - 1s).ctx, with_timeout(outer, 0s).ctx,
                         with_timeout(outer, -1h).ctx})
      expect_ended(past, Errc::deadline_exceeded);
    auto far = with_timeout(background(), std::chrono::hours::max());
    expect_live(far.ctx);
    // Cancelled in time: not a timeout, and none later.
    auto [t, cancel_t] = with_timeout(background(), 10ms);
    cancel_t();
    expect_ended(t);
    EXPECT_EQ(t.err(), std::errc::operation_canceled);
    sleep_until(*t.deadline() + 1ms);
    expect_ended(t);
    EXPECT_EQ(t.err(), std::errc::operation_canceled);
  });
}

TEST(Context, ValuesNearestWins) {  // 134
  each_run([] {
    static const ContextKey<std::string> kA{"a"}, kB{"a"};  // one name, two keys
    static const ContextKey<int> kN{"n"};
    EXPECT_EQ(background().value(kA), nullptr);
    Context c1 = with_value(background(), kA, "one");
    Context c2 = with_value(c1, kN, 7);
    auto [c3, cancel] = with_cancel(c2);
    Context c4 = with_value(c3, kA, "two");
    EXPECT_EQ(*c4.value(kA), "two");
    EXPECT_EQ(*c3.value(kA), "one");
    EXPECT_EQ(*c4.value(kN), 7);
    EXPECT_EQ(c4.value(kB), nullptr);
    EXPECT_EQ(c1.value(kN), nullptr);
    EXPECT_EQ(*without_cancel(c4).value(kN), 7);
    std::string text = "mine";
    Context c5 = with_value(c4, kB, text);
    EXPECT_EQ(*c5.value(kB), "mine");
  });
}

TEST(Context, ManyCancelsAtOnce) {  // 135
  each_run([] {
    auto [root, cancel] = with_cancel(background());
    std::vector<std::pair<Context, CancelFunc>> all{{root, cancel}};
    // The first of ten has ten children, and so on.
    for (size_t at = 0; all.size() < 100; at++)
      for (int i = 0; i < 10; i++) {
        auto [c, f] = with_cancel(all[at].first);
        all.emplace_back(c, f);
      }
    std::shuffle(all.begin(), all.end(), std::minstd_rand(7));
    WaitGroup wg;
    for (auto& [c, f] : all) wg.go([f = f] { f(); });
    for (auto& [c, f] : all) {
      c.done().recv();
      EXPECT_TRUE(c.err());
    }
    wg.wait();
  });
}

TEST(Context, WhenACancelReturnsAllDescendantsAreDone) {
  each_run([] {
    for (int i = 0; i < scaled(300, 50); i++) {
      auto [root, cancel] = with_cancel(background());
      std::vector<CancelContext> below;
      for (int k = 0; k < 200; k++) below.push_back(with_cancel(k < 100 ? root : below[static_cast<size_t>(k) - 100].ctx));
      WaitGroup wg;
      for (int k = 0; k < 2; k++)
        wg.go([&, cancel = cancel] {
          cancel();
          for (auto& b : below) ASSERT_TRUE(b.ctx.err());
        });
      wg.go([&] {
        below[0].cancel();
        ASSERT_TRUE(below[100].ctx.err());
      });
      wg.wait();
    }
  });
}

// One that comes while the first is still at it, among many children.
TEST(Context, ASecondCancelReturnsNoEarlierThanTheFirst) {
  each_run([] {
    for (int round = 0; round < 5; round++) {
      auto [root, cancel] = with_cancel(background());
      std::vector<CancelContext> children;
      for (int i = 0; i < scaled(20'000, 2'000); i++) children.push_back(with_cancel(root));
      WaitGroup wg;
      wg.go([&, root = root, cancel = cancel] {
        while (!root.err()) yield();
        cancel();
        for (auto& c : children) ASSERT_TRUE(c.ctx.err());
      });
      yield();
      cancel();
      wg.wait();
    }
  });
}

TEST(Context, InterlockedCancels) {  // 135
  each_run([] {
    auto [parent, cancel_parent] = with_cancel(background());
    auto [child, cancel_child] = with_cancel(parent);
    go([parent = parent, cancel_child = cancel_child] {
      parent.done().recv();
      cancel_child();
    });
    cancel_parent();
    child.done().recv();
    expect_ended(child);
  });
}

// Random trees in which random nodes end: exactly their descendants do, with the nearest cause.
TEST(Context, LayersOfAnyShape) {  // 135
  each_run([] {
    std::minstd_rand rng(static_cast<unsigned>(goid()) + 42);
    static const ContextKey<int> kDepth{"depth"};
    for (int round = 0; round < scaled(100, 20); round++) {
      struct Made {
        Context ctx;
        CancelCauseFunc cancel;
        int parent;
        bool shields;
      };
      std::vector<Made> all;
      all.push_back({background(), {}, -1, false});
      for (int i = 1; i < 60; i++) {
        const int p = static_cast<int>(rng() % all.size());
        const Context& parent = all[static_cast<size_t>(p)].ctx;
        switch (rng() % 5) {
          case 0: all.push_back({with_value(parent, kDepth, i), {}, p, false}); break;
          case 1: all.push_back({without_cancel(parent), {}, p, true}); break;
          default: {
            auto [c, f] = with_cancel_cause(parent);
            all.push_back({c, f, p, false});
          }
        }
      }
      std::vector<std::string> want(all.size());
      for (int k = 0; k < 6; k++) {
        const size_t victim = rng() % all.size();
        if (!all[victim].cancel) continue;
        const std::string text = "cause " + std::to_string(k);
        all[victim].cancel(Mistake(text));
        if (want[victim].empty()) want[victim] = text;
        for (size_t i = victim + 1; i < all.size(); i++) {
          const auto p = static_cast<size_t>(all[i].parent);
          if (want[i].empty() && !all[i].shields) want[i] = want[p];
        }
      }
      for (size_t i = 0; i < all.size(); i++) {
        EXPECT_EQ(static_cast<bool>(all[i].ctx.err()), !want[i].empty());
        EXPECT_EQ(why(all[i].ctx.cause()), want[i].empty() ? "none" : want[i]);
      }
    }
  });
}

TEST(Context, NoGoroutinePerChild) {  // 136
  each_run([] {
    auto [root, cancel] = with_cancel(background());
    std::vector<CancelContext> children;
    for (int i = 0; i < 1000; i++) {
      children.push_back(i % 2 ? with_cancel(root) : with_timeout(root, 1h));
      after_func(children.back().ctx, [] {})();
    }
    EXPECT_EQ(num_goroutines(), 1);
    cancel();
    for (auto& c : children) expect_ended(c.ctx);
  });
}

TEST(Context, DeepChainsNeitherCancelNorEndOnTheStack) {
  each_run([] {
    constexpr int kDeep = scaled(200'000, 20'000);
    auto [root, cancel] = with_cancel(background());
    Context at = root;
    for (int i = 0; i < kDeep; i++) {
      auto [c, f] = with_cancel(at);
      f.detach();
      at = c;
    }
    expect_live(at);
    cancel();
    expect_ended(at);
    at = nullptr;  // takes the whole line with it
  });
}

TEST(Context, CancelOfManyChildrenIsLinear) {
  if (kTsan || kAsan) GTEST_SKIP() << "measures";
  // By the thread's CPU time: one P, so that the goroutine stays where it is.
  in_run({1, 1}, [] {
    auto cpu = [] {
      timespec t;
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
      return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
    };
    auto cost = [&](int n) {
      auto [root, cancel] = with_cancel(background());
      std::vector<CancelContext> children;
      for (int i = 0; i < n; i++) children.push_back(with_cancel(root));
      const long long before = cpu();
      cancel();
      const long long took = cpu() - before;
      for (auto& c : children) EXPECT_TRUE(c.ctx.err());
      return took;
    };
    cost(20'000);
    // Quadratic would be 100 times as much.
    const auto least = [&](int n) { return std::min({cost(n), cost(n), cost(n)}); };
    EXPECT_LT(least(200'000), 40 * least(20'000));
  });
}

TEST(Context, CauseMatrix) {  // 137
  each_run([] {
    {
      auto [c, cancel] = with_cancel_cause(background());
      EXPECT_EQ(c.cause(), nullptr);
      cancel();
      expect_ended(c, Errc::canceled, "context canceled");
    }
    {
      auto [c, cancel] = with_cancel_cause(background());
      cancel(Mistake("first"));
      cancel(Mistake("second"));
      expect_ended(c, Errc::canceled, "first");
      EXPECT_THROW(std::rethrow_exception(c.cause()), Mistake);
    }
    {
      auto [c, cancel] = with_cancel_cause(background());
      cancel(nullptr);
      cancel(Mistake("too late"));
      expect_ended(c);
    }
    {
      auto [c, cancel] = with_cancel_cause(background());
      cancel(std::make_error_code(std::errc::broken_pipe));
      EXPECT_EQ(c.err(), Errc::canceled);
      EXPECT_THROW(std::rethrow_exception(c.cause()), std::system_error);
    }
    {  // a child's cause is its parent's, unless it has its own first
      auto [parent, cancel_parent] = with_cancel_cause(background());
      auto [child, cancel_child] = with_cancel_cause(parent);
      auto [other, cancel_other] = with_cancel_cause(parent);
      cancel_child(Mistake("child"));
      cancel_parent(Mistake("parent"));
      cancel_other(Mistake("late"));
      expect_ended(child, Errc::canceled, "child");
      expect_ended(parent, Errc::canceled, "parent");
      expect_ended(other, Errc::canceled, "parent");
      auto [born_late, f] = with_timeout(parent, 1h);
      expect_ended(born_late, Errc::canceled, "parent");
      EXPECT_EQ(without_cancel(parent).cause(), nullptr);
    }
    {
      auto [c, cancel] = with_timeout_cause(background(), 1ms, Mistake("too slow"));
      c.done().recv();
      expect_ended(c, Errc::deadline_exceeded, "too slow");
    }
    {
      auto [c, cancel] = with_timeout_cause(background(), 1h, Mistake("too slow"));
      cancel();
      expect_ended(c, Errc::canceled, "context canceled");
    }
    {
      auto [c, cancel] = with_deadline_cause(background(), now() - 1s, Mistake("over"));
      expect_ended(c, Errc::deadline_exceeded, "over");
    }
    {
      auto [c, cancel] = with_timeout(background(), 1ms);
      c.done().recv();
      expect_ended(c, Errc::deadline_exceeded, "context deadline exceeded");
    }
    EXPECT_EQ(background().cause(), nullptr);
  });
}

TEST(Context, DroppingTheLastCancelCopyCancels) {
  each_run([] {
    Context c;
    {
      CancelFunc kept;
      {
        auto [ctx, cancel] = with_cancel(background());
        c = ctx;
        kept = cancel;
      }
      expect_live(c);
      EXPECT_TRUE(static_cast<bool>(kept));
      CancelFunc moved = std::move(kept);
      expect_live(c);
    }
    expect_ended(c, Errc::canceled, "cancel function dropped: context canceled");
    {
      auto [ctx, cancel] = with_cancel(background());
      CancelFunc copy = cancel;
      copy.detach();
      c = ctx;
    }
    expect_live(c);
    {
      auto [ctx, cancel] = with_timeout(background(), 2ms);
      cancel.detach();
      c = ctx;
    }
    expect_live(c);
    c.done().recv();
    expect_ended(c, Errc::deadline_exceeded);
  });
}

TEST(Context, WithoutCancelKeepsOnlyTheValues) {  // 139
  each_run([] {
    static const ContextKey<int> kN{"n"};
    auto [c, cancel] = with_timeout(with_value(background(), kN, 3), 1h);
    Context w = without_cancel(c);
    auto [child, cancel_child] = with_cancel(w);
    cancel();
    EXPECT_FALSE(w.done());
    EXPECT_FALSE(w.err());
    EXPECT_FALSE(w.deadline());
    EXPECT_FALSE(child.deadline());
    EXPECT_EQ(w.cause(), nullptr);
    EXPECT_EQ(*w.value(kN), 3);
    expect_live(child);
    cancel_child();
    expect_ended(child);
  });
}

// ---- parents of the user's own kind --------------------------------------------------------------

struct OwnDone : CustomContext {
  Chan<void> own = make_chan<void>();
  std::atomic<bool> over{false};
  RecvChan<void> done() const override { return own; }
  std::error_code err() const override { return over ? make_error_code(Errc::canceled) : std::error_code(); }
  void end() {
    over = true;
    own.close();
  }
};

struct Wrapper : CustomContext {
  explicit Wrapper(Context c) : CustomContext(std::move(c)) {}
};

struct Offering : OwnDone {
  mutable std::mutex mu;
  mutable std::vector<std::function<void()>> funcs;
  mutable int stopped = 0;
  std::optional<std::function<bool()>> after_func(std::function<void()> f) const override {
    std::lock_guard l(mu);
    funcs.push_back(std::move(f));
    return [this, at = funcs.size() - 1] {
      std::lock_guard l(mu);
      stopped++;
      return static_cast<bool>(std::exchange(funcs[at], nullptr));
    };
  }
};

TEST(ContextCustom, AParentWithItsOwnDoneCostsAGoroutinePerChild) {  // 136
  each_run([] {
    auto own = std::make_shared<OwnDone>();
    Context parent = own;
    expect_live(parent);
    auto [a, cancel_a] = with_cancel(parent);
    auto [b, cancel_b] = with_timeout(parent, 1h);
    auto [below, cancel_below] = with_cancel(a);
    EXPECT_EQ(num_goroutines(), 3);
    cancel_b();
    EXPECT_TRUE(settle(2, kPatience)) << "a child that has ended is not watched any more";
    expect_live(a);
    own->end();
    below.done().recv();
    expect_ended(a);
    expect_ended(below);
    EXPECT_TRUE(settle(1, kPatience));
    auto [late, cancel_late] = with_cancel(parent);
    expect_ended(late);
    EXPECT_EQ(num_goroutines(), 1);
  });
}

TEST(ContextCustom, OneThatOnlyWrapsIsSeenThrough) {  // 136
  each_run([] {
    auto [c, cancel] = with_cancel_cause(background());
    Context twice = std::make_shared<Wrapper>(Context(std::make_shared<Wrapper>(c)));
    std::vector<CancelContext> children;
    for (int i = 0; i < 10; i++) children.push_back(with_cancel(twice));
    std::atomic<int> ran{0};
    after_func(twice, [&] { ran++; });
    EXPECT_EQ(num_goroutines(), 1);
    cancel(Mistake("inner"));
    for (auto& k : children) expect_ended(k.ctx, Errc::canceled, "inner");
    expect_ended(twice, Errc::canceled, "inner");
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(ran.load(), 1);
  });
}

TEST(ContextCustom, AfterFuncOfTheParentIsUsedAndTakenBack) {  // 136, 138
  each_run([] {
    auto own = std::make_shared<Offering>();
    Context parent = own;
    auto [a, cancel_a] = with_cancel(parent);
    auto [b, cancel_b] = with_cancel(parent);
    EXPECT_EQ(num_goroutines(), 1);
    cancel_a();
    EXPECT_EQ(own->stopped, 1);
    own->end();
    std::vector<std::function<void()>> funcs;
    {
      std::lock_guard l(own->mu);
      funcs = own->funcs;
    }
    for (auto& f : funcs)
      if (f) f();
    expect_ended(b);
    std::lock_guard l(own->mu);
    own->funcs.clear();
  });
}

TEST(ContextCustom, WaitsAndFunctionsEndWithIt) {
  each_run([] {
    auto own = std::make_shared<OwnDone>();
    Context parent = own;
    Chan<int> c = make_chan<int>();
    std::atomic<int> ran{0};
    auto stop = after_func(parent, [&] { ran++; });
    auto stopped = after_func(parent, [&] { ran += 100; });
    EXPECT_TRUE(stopped());
    go_parked("chan receive", [=] { EXPECT_EQ(c.recv(parent).status, RecvStatus::Canceled); });
    go_parked("sleep", [=] { EXPECT_EQ(sleep_for(parent, 1h), Errc::canceled); });
    own->end();
    EXPECT_TRUE(settle(1, kPatience));
    EXPECT_EQ(ran.load(), 1);
    EXPECT_EQ(c.send(parent, 1), Errc::canceled);
  });
}

}  // namespace
}  // namespace weft::test
