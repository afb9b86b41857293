// func(), Frame::defer, Frame::recover: Go's order. What is printed when nobody recovers: tests/crash/frame_report_test.cpp.
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

using Log = std::vector<std::string>;

struct Noted {
  Log* log;
  const char* name;
  ~Noted() { log->push_back(std::string("~") + name); }
};

TEST(Frame, DeferredCallsRunNewestFirstAfterTheBody) {  // 112
  each_run([] {
    Log log;
    func([&](Frame<>& f) {
      for (int i = 0; i < 20; i++) f.defer([&log, i] { log.push_back(std::to_string(i)); });  // more than fit in the frame
      if (log.empty()) f.defer([&] { log.push_back("conditional"); });
      log.push_back("body");
    });
    ASSERT_EQ(log.size(), 22u);
    EXPECT_EQ(log[0], "body");
    EXPECT_EQ(log[1], "conditional");
    for (int i = 0; i < 20; i++) EXPECT_EQ(log[static_cast<size_t>(2 + i)], std::to_string(19 - i));
  });
}

TEST(Frame, ResultIsWhatTheBodyReturnsAndDeferredCallsMayChangeIt) {  // 114
  each_run([] {
    EXPECT_EQ(func<int>([](Frame<int>&) { return 7; }), 7);
    EXPECT_EQ(func<int>([](Frame<int>& f) { f.result = 3; }), 3);
    EXPECT_EQ(func<int>([](Frame<int>& f) {
                f.defer([&f] { f.result *= 2; });
                return 7;
              }),
              14);
    EXPECT_EQ(func<int>([](Frame<int>& f) -> int {
                f.defer([&f] {
                  if (f.recover()) f.result = -1;
                });
                panic("risky");
              }),
              -1);
    auto text = func<std::unique_ptr<std::string>>([](Frame<std::unique_ptr<std::string>>& f) {
      f.defer([&f] { *f.result += "!"; });
      return std::make_unique<std::string>("moved");
    });
    EXPECT_EQ(*text, "moved!");
  });
}

TEST(Frame, DeferredCallsRunBeforeAnythingUnwinds) {
  each_run([] {
    Log log;
    func([&](Frame<>& f) {
      Noted body{&log, "body"};
      f.defer([&] {
        log.push_back("outer");
        EXPECT_TRUE(f.recover());
      });
      func([&](Frame<>& g) {
        Noted inner{&log, "inner"};
        g.defer([&] { log.push_back("inner"); });
        panic("now");
      });
    });
    EXPECT_EQ(log, (Log{"inner", "outer", "~inner", "~body"}));
  });
}

TEST(Frame, RecoverTakesEveryException) {
  each_run([] {
    std::optional<Panic> p;
    auto run_it = [&](auto body) {
      func([&](Frame<>& f) {
        f.defer([&] { p = f.recover(); });
        body();
      });
    };
    run_it([] { throw std::out_of_range("not a panic"); });
    ASSERT_TRUE(p);
    EXPECT_STREQ(p->what(), "not a panic");
    EXPECT_FALSE(p->is_runtime_error());
    ASSERT_NE(p->value<std::out_of_range>(), nullptr);
    ASSERT_NE(p->value<std::exception>(), nullptr);
    EXPECT_EQ(p->value<std::string>(), nullptr);
    EXPECT_THROW(std::rethrow_exception(p->exception()), std::out_of_range);
    run_it([] { throw 42; });
    ASSERT_TRUE(p && p->value<int>());
    EXPECT_EQ(*p->value<int>(), 42);
    run_it([] { panic(std::string("text")); });
    ASSERT_TRUE(p && p->value<std::string>());
    EXPECT_EQ(*p->value<std::string>(), "text");
    run_it([] { Chan<int> c = make_chan<int>(); c.close(); c.close(); });
    ASSERT_TRUE(p);
    EXPECT_TRUE(p->is_runtime_error());
    EXPECT_STREQ(p->what(), "close of closed channel");
    run_it([] { std::rethrow_exception(std::make_exception_ptr(std::logic_error("rethrown"))); });
    ASSERT_TRUE(p);
    EXPECT_STREQ(p->what(), "rethrown");
    run_it([] {
      try {
        throw std::logic_error("again");
      } catch (...) {
        throw;
      }
    });
    ASSERT_TRUE(p);
    EXPECT_STREQ(p->what(), "again");
  });
}

TEST(Frame, RecoverIsNulloptWhereGoGivesNil) {  // 113
  each_run([] {
    int calls = 0;
    func([&](Frame<>& f) {
      EXPECT_FALSE(f.recover());  // nothing panics
      f.defer([&] {
        calls++;
        EXPECT_FALSE(f.recover());  // returning
      });
    });
    try {
      func([&](Frame<>& f) {
        f.defer([&] {
          calls++;
          func([&](Frame<>& g) {
            EXPECT_FALSE(g.recover());  // not the panic's function
            EXPECT_FALSE(f.recover());  // a callee of the deferred call
            g.defer([&] {
              EXPECT_FALSE(g.recover());
              EXPECT_FALSE(f.recover());
            });
          });
        });
        panic("goes on");
      });
      ADD_FAILURE();
    } catch (const Panic& p) {
      EXPECT_STREQ(p.what(), "goes on");
    }
    func([&](Frame<>& f) {
      f.defer([&] {
        calls++;
        EXPECT_TRUE(f.recover());
        EXPECT_FALSE(f.recover());  // once
      });
      panic("once");
    });
    EXPECT_EQ(calls, 3);
  });
}

TEST(Frame, AfterRecoveryTheOlderDeferredCallsRunAsOnReturn) {
  each_run([] {
    Log log;
    func([&](Frame<>& f) {
      Noted body{&log, "body"};
      f.defer([&] {
        EXPECT_FALSE(f.recover());
        EXPECT_EQ(std::uncaught_exceptions(), 0);
        log.push_back("oldest");
      });
      f.defer([&] {
        EXPECT_TRUE(f.recover());
        log.push_back("recovers");
      });
      f.defer([&] { log.push_back("newest"); });
      panic("x");
    });
    EXPECT_EQ(log, (Log{"newest", "recovers", "~body", "oldest"}));
  });
}

TEST(Frame, APanicInADeferredCallReplacesTheOneInFlight) {
  each_run([] {
    Log log;
    try {
      func([&](Frame<>& f) {
        f.defer([&] { log.push_back("oldest"); });
        f.defer([&] {
          Noted local{&log, "local"};
          panic("second");
        });
        panic("first");
      });
      ADD_FAILURE();
    } catch (const Panic& p) {
      EXPECT_STREQ(p.what(), "second");
    }
    EXPECT_EQ(log, (Log{"~local", "oldest"}));
    // Recovered by the same function: both are over.
    std::string seen;
    func([&](Frame<>& f) {
      f.defer([&] { seen = f.recover()->what(); });
      f.defer([&] { panic("second"); });
      panic("first");
    });
    EXPECT_EQ(seen, "second");
    // Recovered inside the deferred call: the first goes on.
    try {
      func([&](Frame<>& f) {
        f.defer([&] {
          func([&](Frame<>& g) {
            g.defer([&] { seen = g.recover()->what(); });
            panic("inner");
          });
        });
        panic("first");
      });
      ADD_FAILURE();
    } catch (const Panic& p) {
      EXPECT_STREQ(p.what(), "first");
    }
    EXPECT_EQ(seen, "inner");
  });
}

TEST(Frame, RecursivePanics) {  // 90: RecursivePanic, 2, 5 up to their last panic
  each_run([] {
    Log log;
    auto print_recovered = [&](Frame<>& f) {
      std::optional<Panic> p = f.recover();
      log.push_back(p ? p->what() : "nil");
    };
    func([&](Frame<>& f) {
      f.defer([&] { print_recovered(f); });
      func([&](Frame<>& g) {
        g.defer([&] {
          if (std::optional<Panic> p = g.recover()) panic(std::string("wrap: ") + p->what());
        });
        panic("bad");
      });
    });
    EXPECT_EQ(log, (Log{"wrap: bad"}));
    log.clear();
    func([&](Frame<>& f) {
      f.defer([&] { print_recovered(f); });
      func([&](Frame<>& g) {
        g.defer([&] { panic("second panic"); });
        g.defer([&] { print_recovered(g); });
        panic("first panic");
      });
    });
    EXPECT_EQ(log, (Log{"first panic", "second panic"}));
    log.clear();
    func([&](Frame<>& f) {
      f.defer([] {});
      func([&](Frame<>& g) {
        g.defer([] {});
        g.defer([&] { print_recovered(g); });
        g.defer([&] {
          print_recovered(g);
          panic("second panic");
        });
        panic("first panic");
      });
    });
    EXPECT_EQ(log, (Log{"first panic", "second panic"}));
  });
}

TEST(Frame, HandlersBetweenTheThrowAndTheFunctionComeFirst) {
  each_run([] {
    Log log;
    func([&](Frame<>& f) {
      f.defer([&] { log.push_back(f.recover() ? "recovered" : "returned"); });
      try {
        throw std::runtime_error("x");
      } catch (const std::runtime_error&) {
        log.push_back("caught");
      }
    });
    EXPECT_EQ(log, (Log{"caught", "returned"}));
    log.clear();
    try {
      func([&](Frame<>& f) {
        f.defer([&] { log.push_back("deferred"); });
        try {
          throw std::runtime_error("x");
        } catch (const std::logic_error&) {
          log.push_back("wrong");
        }
      });
    } catch (const std::runtime_error&) {
      log.push_back("caught");
    }
    EXPECT_EQ(log, (Log{"deferred", "caught"}));
  });
}

TEST(Frame, GoexitRunsDeferredCallsAndRecoverGivesNil) {  // 93
  each_run([] {
    Log log;
    WaitGroup wg;
    wg.go([&] {
      Noted whole{&log, "whole"};
      func([&](Frame<>& f) {
        f.defer([&] { log.push_back(f.recover() ? "recovered" : "nil"); });
        goexit();
      });
      log.push_back("not here");
    });
    wg.wait();
    EXPECT_EQ(log, (Log{"nil", "~whole"}));
  });
}

TEST(Frame, GoexitInADeferredCallDropsThePanic) {  // 94
  each_run([] {
    Log log;
    WaitGroup wg;
    wg.go([&] {
      func([&](Frame<>& f) {
        f.defer([&] { log.push_back(f.recover() ? "recovered" : "nil"); });
        f.defer([] { goexit(); });
        panic("dropped");
      });
      log.push_back("not here");
    });
    wg.wait();
    EXPECT_EQ(log, (Log{"nil"}));
  });
}

TEST(Frame, GoexitGoesOnAfterARecoveredPanic) {  // 96, 97
  each_run([] {
    for (int form = 0; form < 4; form++) {
      Log log;
      WaitGroup wg;
      wg.go([&] {
        func([&](Frame<>& outer) {
          outer.defer([&] { log.push_back(outer.recover() ? "recovered outside" : "nil outside"); });
          func([&](Frame<>& f) {
            if (form == 0) {  // recovered within the deferred call
              f.defer([&] {
                func([&](Frame<>& g) {
                  g.defer([&] { EXPECT_TRUE(g.recover()); });
                  panic("hello");
                });
              });
            } else if (form == 1) {  // by an older deferred call
              f.defer([&] { EXPECT_TRUE(f.recover()); });
              f.defer([] { panic("hello"); });
            } else if (form == 2) {
              for (int i = 0; i < 2; i++) f.defer([] {});
              f.defer([&] { EXPECT_TRUE(f.recover()); });
              f.defer([] { panic("hello"); });
            } else {  // by the caller
              f.defer([] { panic("hello"); });
            }
            goexit();
          });
          log.push_back("not here");
        });
        log.push_back("nor here");
      });
      wg.wait();
      EXPECT_EQ(log, (Log{form == 3 ? "recovered outside" : "nil outside"})) << form;
    }
  });
}

TEST(Frame, NilDeferredFunctionPanicsWhenItIsCalled) {  // 112
  each_run([] {
    std::string seen;
    bool body_ran = false;
    func([&](Frame<>& f) {
      f.defer([&] { seen = f.recover()->what(); });
      f.defer(std::function<void()>());
      f.defer(static_cast<void (*)()>(nullptr));
      body_ran = true;
    });
    EXPECT_TRUE(body_ran);
    EXPECT_EQ(seen, "invalid memory address or nil pointer dereference");
  });
}

TEST(Frame, DeferredCallsMayParkAndMoveToAnotherThread) {
  each_run([] {
    constexpr int kGoroutines = 50;
    Chan<int> c = make_chan<int>();
    for (int i = 0; i < kGoroutines; i++)
      go([c, i] {
        func([&](Frame<>& f) {
          f.defer([&] {
            for (int k = 0; k < 20; k++) yield();
            std::optional<Panic> p = f.recover();
            c.send(p && p->value<int>() ? *p->value<int>() : -1);
          });
          func([&](Frame<>& g) {
            g.defer([] { sleep_for(1us); });
            if (i % 2) panic(i);
            throw i;
          });
        });
        EXPECT_EQ(std::uncaught_exceptions(), 0);
      });
    int sum = 0;
    for (int i = 0; i < kGoroutines; i++) sum += c.recv_or();
    EXPECT_EQ(sum, kGoroutines * (kGoroutines - 1) / 2);
  });
}

TEST(Frame, ManyPanicsLeaveNothingBehind) {
  each_run([] {
    auto alive = std::make_shared<int>();
    for (int i = 0; i < 1000; i++) {
      try {
        func([&](Frame<>& f) {
          f.defer([alive] {});
          f.defer([&f, alive, i] {
            if (i % 3 == 0) (void)f.recover();
            if (i % 3 == 1) panic(alive);
          });
          panic(alive);
        });
      } catch (const Panic&) {
      }
    }
    EXPECT_EQ(alive.use_count(), 1);
    EXPECT_EQ(std::uncaught_exceptions(), 0);
    EXPECT_EQ(std::current_exception(), nullptr);
  });
}

TEST(Frame, WorksOnAPlainThread) {
  std::thread t([] {
    std::string seen;
    func([&](Frame<>& f) {
      f.defer([&] { seen = f.recover()->what(); });
      f.defer([&] { panic("second"); });
      throw std::runtime_error("first");
    });
    EXPECT_EQ(seen, "second");
  });
  t.join();
}

TEST(Frame, RepanickedValueIsTheSamePanic) {  // 91
  each_run([] {
    struct Value {
      int n;
    };
    try {
      func([&](Frame<>& f) {
        f.defer([&] { panic(*f.recover()); });
        panic(Value{5});
      });
      ADD_FAILURE();
    } catch (const Panic& p) {
      ASSERT_NE(p.value<Value>(), nullptr);
      EXPECT_EQ(p.value<Value>()->n, 5);
    }
  });
}

TEST(Frame, StopUnwindsAGoroutineThatIsParkedInADeferredCall) {
  Log log;
  const StopResult r = in_runtime({.procs = 2, .seed = 1}, [&] {
    Chan<void> ready = make_chan<void>();
    go([&, ready] {
      Noted whole{&log, "whole"};
      func([&](Frame<>& f) {
        f.defer([&] { log.push_back("older"); });
        f.defer([&] {
          ready.send();
          (void)make_chan<int>().recv();
        });
        panic("held up");
      });
    });
    (void)ready.recv();
  });
  EXPECT_EQ(r.unwound.size(), 1u);
  EXPECT_TRUE(r.abandoned.empty());
  EXPECT_EQ(log, (Log{"older", "~whole"}));
}

TEST(Frame, ACancelIsNotRecoveredAndDeferredCallsAreShielded) {
  each_run([] {
    Log log;
    Task<void> t = spawn([&] {
      func([&](Frame<>& f) {
        f.defer([&] {
          log.push_back(f.recover() ? "recovered" : "nil");
          sleep_for(1us);  // would throw again
          log.push_back("slept");
        });
        (void)make_chan<int>().recv();
      });
      log.push_back("not here");
    });
    yield();
    t.cancel();
    t.wait();
    EXPECT_EQ(log, (Log{"nil", "slept"}));
    // On a return, too.
    Task<void> u = spawn([&] {
      try {
        (void)make_chan<int>().recv();
      } catch (const Canceled&) {
      }
      func([&](Frame<>& f) {
        f.defer([&] {
          sleep_for(1us);
          log.push_back("slept");
        });
      });
    });
    yield();
    u.cancel();
    u.wait();
    EXPECT_EQ(log, (Log{"nil", "slept", "slept"}));
  });
}

}  // namespace
}  // namespace weft::test
