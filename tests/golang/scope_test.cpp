// Scopes: their guarantees G1-G10, each with the tests that fail when it is broken. G3 to G5: scope_wait_test.cpp.
#include "tests/support/support.hpp"

#include <algorithm>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace weft::test {
namespace {

using namespace std::chrono_literals;

void park_for_ever() { make_chan<int>().recv(); }

/// The what() of each suppressed failure.
std::vector<std::string> suppressed_texts() {
  std::vector<std::string> all;
  for (const std::exception_ptr& e : suppressed()) {
    try {
      std::rethrow_exception(e);
    } catch (const std::exception& x) {
      all.emplace_back(x.what());
    }
  }
  return all;
}

// ---- what a scope gives --------------------------------------------------------------------------

TEST(Scope, ReturnsWhatItsFunctionReturns) {
  each_run([] {
    EXPECT_EQ(scope([](Scope& s) {
                auto a = s.spawn([] { return 1; });
                auto b = s.spawn([](int x) { return x; }, 2);
                return a.get() + b.get();
              }),
              3);
    EXPECT_EQ(*scope([] { return std::make_unique<int>(4); }), 4);
    bool ran = false;
    scope([&] { ran = true; });
    EXPECT_TRUE(ran);
  });
}

TEST(Scope, DroppingTheHandleOfAChildChangesNothing) {
  each_run([] {
    auto c = make_chan<int>();
    int got = 0;
    scope([&](Scope& s) {
      s.spawn([&] { got = c.recv_or(); });
      s.spawn([&] { c.send(5); });
    });
    EXPECT_EQ(got, 5);
  });
}

TEST(Scope, ChildrenMayStartSiblings) {
  each_run([] {
    std::atomic<int> ran{0};
    scope([&](Scope& s) {
      s.spawn([&] {
        for (int i = 0; i < 5; i++)
          s.spawn([&] {
            yield();
            ran++;
          });
      });
    });
    EXPECT_EQ(ran, 5);
  });
}

TEST(Scope, WorksFromAPlainThread) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    std::atomic<int> ended{0};
    const int r = scope([&](Scope& s) {
      auto a = s.spawn([] { return 20; });
      s.spawn([&] {
        Defer d{[&] { ended++; }};
        park_for_ever();
      });
      const int x = a.get() + 1;
      s.cancel();
      return x;
    });
    EXPECT_EQ(r, 21);
    EXPECT_EQ(ended, 1);
    EXPECT_THROW(scope([&](Scope& s) {
                   s.spawn([&] {
                     Defer d{[&] { ended++; }};
                     park_for_ever();
                   });
                   throw std::runtime_error("body");
                 }),
                 std::runtime_error);
    EXPECT_EQ(ended, 2);
    EXPECT_TRUE(rt.stop(1s).unwound.empty());
  }
}

// ---- G1: no child outlives its scope --------------------------------------------------------------

TEST(Scope, G1ChildrenEndBeforeItDoes) {
  each_run([] {
    std::atomic<int> alive{0};
    auto child = [&] {
      alive++;
      Defer d{[&] {
        for (int i = 0; i < 20; i++) yield();
        alive--;
      }};
      park_for_ever();
    };
    // By return, after a cancel.
    scope([&](Scope& s) {
      for (int i = 0; i < 3; i++) s.spawn(child);
      while (alive < 3) yield();
      s.cancel();
    });
    EXPECT_EQ(alive, 0);
    // By exception.
    EXPECT_THROW(scope([&](Scope& s) {
                   for (int i = 0; i < 3; i++) s.spawn(child);
                   while (alive < 3) yield();
                   throw std::runtime_error("x");
                 }),
                 std::runtime_error);
    EXPECT_EQ(alive, 0);
    // By a panic.
    EXPECT_EQ(panic_of([&] {
                scope([&](Scope& s) {
                  s.spawn(child);
                  while (alive < 1) yield();
                  panic("p");
                });
              }),
              "p");
    EXPECT_EQ(alive, 0);
    // By goexit.
    WaitGroup wg;
    int left = -1;
    wg.go([&] {
      Defer d{[&] { left = alive; }};
      scope([&](Scope& s) {
        s.spawn(child);
        while (alive < 1) yield();
        goexit();
      });
    });
    wg.wait();
    EXPECT_EQ(left, 0);
  });
}

TEST(Scope, G1ChildrenEndBeforeItDoesWhenTheRuntimeStops) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    std::atomic<int> alive{0}, left{-1};
    auto begun = make_chan<void>(4);
    for (bool in_body : {true, false}) {
      alive = 0, left = -1;
      rt.go([&, in_body] {
        Defer d{[&] { left = alive.load(); }};
        scope([&](Scope& s) {
          for (int i = 0; i < 3; i++)
            s.spawn([&] {
              alive++;
              Defer e{[&] {
                for (int k = 0; k < 20; k++) yield();
                alive--;
              }};
              begun.send();
              park_for_ever();
            });
          begun.send();
          if (in_body) park_for_ever();
        });
        park_for_ever();
      });
      for (int i = 0; i < 4; i++) begun.recv();
      EXPECT_TRUE(rt.stop(0s).abandoned.empty());
      EXPECT_EQ(left, 0) << (in_body ? "parked in the body" : "at the scope's end");
      EXPECT_EQ(alive, 0);
      ASSERT_FALSE(rt.start());
    }
    rt.stop();
  }
}

// ---- G2: no error is lost -------------------------------------------------------------------------

TEST(Scope, G2TheFirstFailureCancelsTheOthersAndIsRethrown) {
  each_run([] {
    std::atomic<int> cancelled{0};
    try {
      scope([&](Scope& s) {
        for (int i = 0; i < 3; i++)
          s.spawn([&] {
            try {
              park_for_ever();
            } catch (const Canceled&) {
              cancelled++;
              throw;
            }
          });
        s.spawn([] { throw std::runtime_error("first"); });
        park_for_ever();
      });
      ADD_FAILURE() << "it returned";
    } catch (const std::runtime_error& e) {
      EXPECT_STREQ(e.what(), "first");
      EXPECT_TRUE(suppressed().empty());
    }
    EXPECT_EQ(cancelled, 3);
  });
}

TEST(Scope, G2LaterFailuresAreAttachedToTheFirst) {
  each_run([] {
    std::exception_ptr kept;
    try {
      scope([&](Scope& s) {
        auto second = make_chan<void>();
        s.spawn([] {
          try {
            park_for_ever();
          } catch (const Canceled&) {
            throw std::logic_error("second");
          }
        });
        s.spawn([] { throw std::runtime_error("first"); });
        try {
          park_for_ever();
        } catch (const Canceled&) {
          Shield shield;
          while (num_goroutines() > 1) yield();  // the children have ended
          throw std::domain_error("third");
        }
      });
      ADD_FAILURE();
    } catch (const std::exception& e) {
      EXPECT_STREQ(e.what(), "first");
      EXPECT_EQ(suppressed_texts(), (std::vector<std::string>{"second", "third"}));
      kept = std::current_exception();
    }
    // They live as long as the first one.
    EXPECT_EQ(suppressed(kept).size(), 2u);
    EXPECT_TRUE(suppressed().empty());
    EXPECT_TRUE(suppressed(nullptr).empty());
  });
}

TEST(Scope, G2AFailureThatGetRethrowsIsOneFailure) {
  each_run([] {
    try {
      scope([](Scope& s) {
        auto a = s.spawn([]() -> int { throw std::runtime_error("only"); });
        return a.get();
      });
      ADD_FAILURE();
    } catch (const std::runtime_error& e) {
      EXPECT_STREQ(e.what(), "only");
      EXPECT_TRUE(suppressed().empty());
    }
  });
}

TEST(Scope, G2WhatFollowsFromAFailureComesSecond) {
  each_run([] {
    try {
      scope([](Scope& s) {
        auto a = s.spawn([]() -> int { throw std::runtime_error("cause"); });
        try {
          a.get();
        } catch (const std::runtime_error&) {
          throw std::logic_error("effect");
        }
      });
      ADD_FAILURE();
    } catch (const std::exception& e) {
      EXPECT_STREQ(e.what(), "cause");
      EXPECT_EQ(suppressed_texts(), (std::vector<std::string>{"effect"}));
    }
  });
}

TEST(Scope, CanceledIsNoFailure) {
  each_run([] {
    scope([](Scope& s) {
      auto a = s.spawn([] { park_for_ever(); });
      auto b = s.spawn([] { return 6; });
      a.cancel();
      a.wait();
      EXPECT_FALSE(s.canceled());
      EXPECT_EQ(b.get(), 6);
    });
    // Cancelled by itself it returns; without a result it cannot.
    bool went_on = false;
    scope([&](Scope& s) {
      s.cancel();
      park_for_ever();
      went_on = true;
    });
    EXPECT_FALSE(went_on);
    EXPECT_THROW(scope([&](Scope& s) {
                   s.cancel();
                   park_for_ever();
                   return 1;
                 }),
                 Canceled);
    // And it is no std::exception.
    scope([&](Scope& s) {
      s.cancel();
      try {
        park_for_ever();
      } catch (const std::exception&) {
        ADD_FAILURE() << "taken for a failure";
      }
    });
  });
}

// ---- G6: shields -----------------------------------------------------------------------------------

TEST(Scope, G6AShieldHidesCancellation) {
  each_run([] {
    auto c = make_chan<int>();
    auto begun = make_chan<void>();
    Task<int> t = spawn([=] {
      const int x = shield([&] {
        begun.send();
        EXPECT_FALSE(canceled());
        const int first = c.recv_or();
        EXPECT_FALSE(current_context().err());
        return first + scope([&](Scope& s) { return s.spawn([&] { return c.recv_or(); }).get(); });
      });
      EXPECT_TRUE(canceled());
      EXPECT_THROW(c.recv(), Canceled);
      return x;
    });
    begun.recv();
    t.cancel();
    c.send(3);
    c.send(4);
    EXPECT_EQ(t.get(), 7);
    EXPECT_EQ(shield([] { return 1; }), 1) << "outside tasks it does nothing";
  });
}

TEST(Scope, G6AShieldsBudgetBeginsWithTheCancellationAndItsOverrunIsReported) {
  std::vector<std::string> log;
  Mutex log_mu;
  for (const Machine& m : kMachines) {
    log.clear();
    Config c = m.config();
    c.log = [&](LogLevel, std::string_view text) {
      std::lock_guard l{log_mu};
      log.emplace_back(text);
    };
    run(
        [&] {
          auto begun = make_chan<void>();
          Task<bool> t = spawn([=] {
            return shield(2ms, [&] {
              sleep_for(6ms);  // nobody has cancelled: no budget is used
              EXPECT_FALSE(canceled());
              begun.send();
              try {
                park_for_ever();
                return false;
              } catch (const Canceled&) {
                return true;
              }
            });
          });
          begun.recv();
          const Time before = now();
          t.cancel();
          EXPECT_TRUE(t.get());
          EXPECT_GE(now() - before, 2ms);
          // One that is entered when it has come already.
          Task<bool> u = spawn([] {
            while (!canceled()) yield();
            const Time entered = now();
            return shield(1ms, [entered] {
              const bool over = canceled();
              EXPECT_TRUE(!over || now() - entered >= 1ms);  // a loaded machine may use it up before the look
              try {
                park_for_ever();
                return false;
              } catch (const Canceled&) {
                return true;
              }
            });
          });
          u.cancel();
          EXPECT_TRUE(u.get());
        },
        c);
    int overruns = 0;
    for (const std::string& line : log)
      if (line.find("a shield has lasted longer than its") != std::string::npos) overruns++;
    EXPECT_EQ(overruns, 2);
  }
}

// ---- G7: destructors and deferred calls --------------------------------------------------------------

TEST(Scope, G7DestructorsAndDeferredCallsAreShielded) {
  each_run([] {
    auto c = make_chan<int>();
    std::vector<std::string> order;
    struct Waits {
      std::vector<std::string>& order;
      Chan<int> c;
      ~Waits() {
        EXPECT_EQ(c.recv(), 2);
        order.emplace_back("destructor");
      }
    };
    auto begun = make_chan<void>();
    Task<void> t = spawn([&] {
      Defer normal{[&] {
        EXPECT_EQ(c.recv(), 3);
        scope([&](Scope& s) { s.spawn([&] { EXPECT_EQ(c.recv(), 4); }); });
        order.emplace_back("outer");
      }};
      Waits w{order, c};
      Defer d{[&] {
        EXPECT_EQ(c.recv(), 1);
        order.emplace_back("inner");
      }};
      begun.send();
      park_for_ever();
    });
    begun.recv();
    t.cancel();
    for (int i = 1; i <= 4; i++) c.send(i);
    t.wait();
    EXPECT_EQ(order, (std::vector<std::string>{"inner", "destructor", "outer"}));
    // Also when nothing unwinds.
    Task<void> u = spawn([&] {
      Defer d{[&] { EXPECT_EQ(c.recv(), 5); }};
      while (!canceled()) yield();
    });
    u.cancel();
    c.send(5);
    u.get();
  });
}

// ---- G8: inheritance ---------------------------------------------------------------------------------

TEST(Scope, G8DeadlinesNestAndValuesAreInherited) {
  static const ContextKey<std::string> kUser{"user"};
  each_run([] {
    const Context ctx = with_value(background(), kUser, "ada");
    scope({.timeout = 1h, .context = ctx}, [&](Scope& outer) {
      const std::optional<Time> far = outer.context().deadline();
      ASSERT_TRUE(far);
      scope({.timeout = 10s}, [&](Scope& inner) {
        EXPECT_LT(*inner.context().deadline(), *far);
        inner.spawn([&] {
          const Context mine = current_context();
          EXPECT_EQ(*mine.value(kUser), "ada");
          EXPECT_EQ(mine.deadline(), inner.context().deadline());
          // A later one does not extend it.
          scope({.timeout = 2h}, [&](Scope& s) { EXPECT_EQ(s.context().deadline(), inner.context().deadline()); });
        });
        Task<void> own = spawn([&] { EXPECT_EQ(*current_context().value(kUser), "ada"); });
        own.get();
      });
      EXPECT_EQ(outer.context(), current_context());
    });
    EXPECT_EQ(current_context(), background());
  });
}

TEST(Scope, G8ADeadlineCutsItShort) {
  each_run([] {
    std::error_code in_child, in_body;
    try {
      scope({.timeout = 2ms}, [&](Scope& s) {
        s.spawn([&] {
          sleep_for(background(), 1h);
          in_child = current_context().err();
        });
        try {
          park_for_ever();
        } catch (const Canceled&) {
          in_body = current_context().err();
          throw;
        }
      });
      ADD_FAILURE();
    } catch (const std::system_error& e) {
      EXPECT_EQ(e.code(), Errc::deadline_exceeded);
    }
    EXPECT_EQ(in_child, Errc::deadline_exceeded);
    EXPECT_EQ(in_body, Errc::deadline_exceeded);
    // Who is through in spite of it has succeeded.
    EXPECT_EQ(scope({.timeout = 1ms},
                    [] {
                      while (!canceled()) yield();
                      return 5;
                    }),
              5);
    // One that has passed already, as a point in time.
    EXPECT_THROW(scope({.deadline = now() - 1s}, [] { park_for_ever(); }), std::system_error);
    // An inner one's does not end the outer.
    scope({.timeout = 1h}, [](Scope& s) {
      EXPECT_THROW(scope({.timeout = 1ms}, [] { park_for_ever(); }), std::system_error);
      EXPECT_FALSE(s.canceled());
    });
    // The outer's ends the inner.
    try {
      scope({.timeout = 1ms}, [] { scope({.timeout = 1h}, [] { park_for_ever(); }); });
      ADD_FAILURE();
    } catch (const std::system_error& e) {
      EXPECT_EQ(e.code(), Errc::deadline_exceeded);
    }
  });
}

TEST(Scope, G8AContextCutsItShort) {
  each_run([] {
    auto [ctx, cancel] = with_cancel(background());
    auto begun = make_chan<void>(1);
    go([cancel = cancel, begun] {
      begun.recv();
      cancel();
    });
    try {
      scope({.context = ctx}, [&](Scope& s) {
        s.spawn([] { park_for_ever(); });
        begun.send();
        park_for_ever();
      });
      ADD_FAILURE();
    } catch (const std::system_error& e) {
      EXPECT_EQ(e.code(), Errc::canceled);
    }
    EXPECT_THROW(scope({.context = ctx}, [] { park_for_ever(); }), std::system_error) << "done before";
    EXPECT_EQ(scope({.context = ctx}, [] { return 3; }), 3);
  });
}

// ---- G9, G10 -----------------------------------------------------------------------------------------

TEST(Scope, G9ADumpShowsWhoWaitsForTheEndOfAScopeAndWhoIsInIt) {
  each_run([] {
    auto c = make_chan<int>();
    std::atomic<uint64_t> owner{0}, child{0};
    Task<void> t = spawn([&] {
      owner = goid();
      scope([&](Scope& s) {
        s.spawn({.name = "worker"}, [&] {
          child = goid();
          c.recv();
        });
      });
    });
    while (!child) yield();
    until_parked(child, "chan receive");
    until_parked(owner, "scope end");
    const std::string dump = dump_goroutines();
    EXPECT_NE(dump.find("[scope end"), std::string::npos) << dump;
    EXPECT_NE(dump.find("in the scope of goroutine " + std::to_string(owner)), std::string::npos) << dump;
    c.send(1);
    t.get();
  });
}

TEST(Scope, G10TheStopUnwindsAndListsWhoIsStubborn) {
  if (kAsan) GTEST_SKIP() << "what an abandoned goroutine holds is lost";
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    std::atomic<bool> over{false}, computes{false};
    std::atomic<int> begun{0};
    rt.go([&] {
      scope([&](Scope& s) {
        s.spawn({.name = "parked"}, [&] {
          begun++;
          park_for_ever();
        });
        s.spawn({.name = "stubborn"}, [&] {
          begun++;
          Defer d{[&] {
            computes = true;
            while (!over) yield();  // never ends its destructors
          }};
          park_for_ever();
        });
      });
    });
    ASSERT_TRUE(eventually([&] { return begun == 2; }));
    const StopResult r = rt.stop(0s);
    over = true;
    auto named = [](const std::vector<GoroutineInfo>& all, std::string_view name) {
      return std::any_of(all.begin(), all.end(), [&](const GoroutineInfo& g) { return g.name == name; });
    };
    EXPECT_TRUE(named(r.unwound, "parked"));
    EXPECT_TRUE(named(r.abandoned, "stubborn"));
    EXPECT_EQ(r.abandoned.size(), 2u) << "the stubborn one, and who waits for it";
  }
}

// ---- generated trees -----------------------------------------------------------------------------------

/// A tree of scopes whose nodes wait, fail or return, as the seed says.
struct RandomTree {
  std::mt19937_64 rng;
  std::atomic<int> alive{0};
  std::atomic<int> failures{0};

  void node(uint64_t seed, int depth) {
    std::mt19937_64 mine(seed);
    struct Count {
      std::atomic<int>& n;
      explicit Count(std::atomic<int>& c) : n(c) { n++; }
      ~Count() { n--; }
    } count(alive);
    scope([&](Scope& s) {
      const int children = depth == 0 ? 0 : static_cast<int>(mine() % 4);
      for (int i = 0; i < children; i++) s.spawn([this, next = mine(), depth] { node(next, depth - 1); });
      for (uint64_t i = mine() % 8; i > 0; i--) yield();
      switch (mine() % 8) {
        case 0:
          failures++;
          throw std::runtime_error("node");
        case 1: s.cancel(); break;
        case 2: sleep_for(std::chrono::microseconds(mine() % 200)); break;
        case 3: throw_if_canceled(); break;
        case 4: shield([] { yield(); }); break;
        default: break;
      }
    });
  }
};

TEST(Scope, GeneratedTreesKeepTheGuarantees) {
  for (const Machine& m : kMachines)
    in_run(m, [&] {
      for (uint64_t seed = 1; seed <= per_schedule(scaled(200u, 30u), 10u); seed++) {
        const uint64_t shape = schedules().first ? seed + 10 * m.seed : seed;
        RandomTree tree;
        bool threw = false;
        size_t seen = 0;
        Task<void> t = spawn([&] {
          try {
            tree.node(shape, 4);
          } catch (const std::runtime_error&) {
            threw = true;
            seen = 1 + suppressed().size();
          }
        });
        if (seed % 3 == 0) {
          for (uint64_t i = 0; i < seed % 17; i++) yield();
          t.cancel();
        }
        t.wait();
        ASSERT_EQ(tree.alive, 0) << "shape " << shape;
        if (seed % 3 != 0) {
          ASSERT_EQ(threw, tree.failures > 0) << "shape " << shape;
        }
        ASSERT_LE(seen, static_cast<size_t>(tree.failures.load())) << "shape " << shape;
      }
    });
}

TEST(Scope, SpawnAfterItsEndPanics) {
  each_run([] {
    // A child keeps what it needs of the scope alive, so that it may find this out.
    Scope* kept = nullptr;
    auto ended = make_chan<void>();
    Task<void> last;
    scope([&](Scope& s) {
      kept = &s;
      last = s.spawn([] {});
    });
    EXPECT_EQ(panic_of([&] { kept->spawn([] {}); }), "weft: spawn in a scope that has ended");
  });
}

}  // namespace
}  // namespace weft::test
