// What an uncaught panic leaves behind: one report, made where it was thrown, and exit status 2.
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {

// Names that a traceback must show; not in an anonymous namespace, so that they can be resolved
// from the symbol table.
[[gnu::noinline]] void throw_point(int depth) {
  if (depth == 0) panic("from the throw point");
  if (depth > 0) throw_point(depth - 1);
  asm volatile("");
}

[[gnu::noinline]] void throws_runtime_error() { throw std::runtime_error("an ordinary exception"); }

[[gnu::noinline]] void spawns_the_panicking_one(const Chan<int>& c) {
  go([c] {
    Defer d{[] { std::puts("deferred"); }};
    throw_point(2);
  });
  asm volatile("");
}

namespace {

using namespace std::chrono_literals;

TEST(PanicReport, OfMainIsGoroutine1RunningAndExit2) {  // 99
  const Child c = child([] { run([] { panic("boom"); }); });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("panic: boom\n", 0), 0u) << c.report();
  EXPECT_EQ(c.line("goroutine "), "goroutine 1 [running]:") << c.report();
}

TEST(PanicReport, OfAnotherGoroutineNamesItsThrowPointAndItsCreator) {
  const Child c = child([] {
    run([] {
      Chan<int> c = make_chan<int>();
      spawns_the_panicking_one(c);
      (void)c.recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.line("panic: "), "panic: from the throw point") << c.report();
  const std::string g = c.goroutine("[running]:");
  EXPECT_NE(g.find("throw_point"), std::string::npos) << c.report();
  EXPECT_NE(g.find("created by "), std::string::npos) << c.report();
  EXPECT_NE(g.find("spawns_the_panicking_one"), std::string::npos) << c.report();
  EXPECT_NE(g.find(" in goroutine 1"), std::string::npos) << c.report();
  EXPECT_EQ(c.err.find("goroutine 1 [running]"), std::string::npos) << c.report();
}

TEST(PanicReport, IsMadeBeforeAnyUnwinding) {
  // No destructor has run: the report shows the stack as it was, and deferred calls print nothing.
  const Child c = child([] {
    run([] {
      Defer d{[] { std::puts("deferred"); }};
      throw_point(3);
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_NE(c.goroutine("goroutine 1 ").find("throw_point"), std::string::npos) << c.report();
}

TEST(PanicReport, OfAnExceptionThatLeavesAGoroutine) {  // 115
  const Child c = child([] {
    run([] {
      go([] { throws_runtime_error(); });
      (void)make_chan<int>().recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  const std::string first = c.line("panic: ");
  EXPECT_NE(first.find("an ordinary exception"), std::string::npos) << c.report();
  EXPECT_NE(c.goroutine("[running]:").find("throws_runtime_error"), std::string::npos)
      << "the report does not name the throw point" << c.report();
}

TEST(PanicReport, OfSomethingThatIsNoException) {
  const Child c = child([] { run([] { throw 42; }); });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("panic: ", 0), 0u) << c.report();
  EXPECT_TRUE(c.says("int")) << c.report();
  EXPECT_TRUE(c.says("goroutine 1 [running]:")) << c.report();
}

TEST(PanicReport, OfACaughtOneIsNotMade) {
  const Child c = child([] {
    return run([] {
      for (int i = 0; i < 100; i++) {
        try {
          if (i % 2)
            throw_point(1);
          else
            throws_runtime_error();
        } catch (const std::exception&) {
        }
      }
      return 8;
    });
  });
  EXPECT_EQ(c.status, 8) << c.report();
  EXPECT_EQ(c.err, "") << c.report();
}

TEST(PanicReport, OfARethrownExceptionComesOnce) {
  const Child c = child([] {
    run([] {
      try {
        throw_point(1);
      } catch (...) {
        yield();
        throw;
      }
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.count("panic: from the throw point"), 1) << c.report();
}

TEST(PanicReport, OfTheRuntimesOwnCarriesGosMessage) {  // 10, 11
  const struct {
    std::function<void()> f;
    const char* message;
  } cases[] = {
      {[] {
         Chan<int> c = make_chan<int>();
         c.close();
         c.send(1);
       },
       "panic: send on closed channel"},
      {[] {
         Chan<int> c = make_chan<int>();
         c.close();
         c.close();
       },
       "panic: close of closed channel"},
      {[] { Chan<int>().close(); }, "panic: close of nil channel"},
      {[] { (void)make_chan<int>(-1); }, "panic: makechan: size out of range"},
      {[] {
         WaitGroup wg;
         wg.done();
       },
       "panic: sync: negative WaitGroup counter"},
  };
  for (const auto& k : cases) {
    const Child c = child([&] { run([&] { k.f(); }); });
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 2) << c.report();
    EXPECT_EQ(c.err.rfind(k.message, 0), 0u) << k.message << c.report();
    EXPECT_TRUE(c.says("goroutine 1 [running]:")) << c.report();
  }
}

TEST(PanicReport, WhileParkedIsMadeWhereTheWaitWas) {
  const Child c = child([] {
    run([] {
      Chan<int> c = make_chan<int>();
      go_parked("chan send", [c] { c.send(1); });
      c.close();
      (void)make_chan<int>().recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("panic: send on closed channel", 0), 0u) << c.report();
  EXPECT_FALSE(c.says("goroutine 1 [running]")) << c.report();
}

TEST(PanicReport, NewlinesInTheMessageAreIndented) {  // 102
  const Child c = child([] { run([] { panic("first\nsecond\nthird"); }); });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("panic: first\n\tsecond\n\tthird\n", 0), 0u) << c.report();
}

TEST(PanicReport, OfNilSaysSo) {  // 102
  const Child of_nullptr = child([] { run([] { panic(nullptr); }); });
  const Child of_no_text = child([] { run([] { panic(static_cast<const char*>(nullptr)); }); });
  for (const Child* c : {&of_nullptr, &of_no_text}) {
    EXPECT_EQ(c->status, 2) << c->report();
    EXPECT_EQ(c->line("panic: "), "panic: panic called with nil argument") << c->report();
  }
}

TEST(PanicReport, MainReturningWaitsForOneThatHasBegun) {  // 103
  for (int round = 0; round < 5; round++) {
    const Child c = child([] {
      run(
          [] {
            go([] { throw_point(10); });
            yield();
          },
          Machine{2, 1}.config());
    });
    if (!c.ran) continue;
    // Either main returned before the panic began, or the report is whole.
    if (c.status == 0) {
      EXPECT_EQ(c.err, "") << c.report();
    } else {
      EXPECT_EQ(c.status, 2) << c.report();
      EXPECT_EQ(c.line("panic: "), "panic: from the throw point") << c.report();
      EXPECT_TRUE(c.says("[running]:")) << c.report();
    }
  }
}

// A message that takes its time: main returns while the panic is being described.
struct SlowToDescribe : std::exception {
  static inline std::atomic<bool> described{false};
  const char* what() const noexcept override {
    described = true;
    for (int i = 0; i < 1000; i++) std::this_thread::sleep_for(20us);
    return "described slowly";
  }
};

TEST(PanicReport, MainReturningAfterItHasBegunExitsWith2) {  // 103
  const Child c = child([] {
    run(
        [] {
          go([] { throw SlowToDescribe(); });
          while (!SlowToDescribe::described) safepoint();
        },
        Machine{2, 1}.config());
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("described slowly")) << c.report();
}

TEST(PanicReport, ConcurrentPanicsGiveOneReport) {  // 105
  for (int round = 0; round < 5; round++) {
    const Child c = child([] {
      run(
          [] {
            std::atomic<int> ready{0};
            for (int i = 0; i < 4; i++)
              go([&] {
                ready++;
                while (ready < 4) yield();
                throw_point(5);
              });
            (void)make_chan<int>().recv();
          },
          Machine{4, 1}.config());
    });
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 2) << c.report();
    EXPECT_EQ(c.count("panic: "), 1) << c.report();
    EXPECT_EQ(c.count("[running]:"), 1) << c.report();
  }
}

TEST(PanicReport, AMessageThatUsesTheRuntimeStillPrints) {  // 101
  struct Yields : std::exception {
    const char* what() const noexcept override {
      yield();
      return "after a yield";
    }
  };
  const Child c = child([] {
    run([] {
      go([] {
        for (;;) yield();
      });
      throw Yields();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("after a yield")) << c.report();
}

TEST(PanicReport, AMessageThatSleepsWhileMainReturnsStillPrints) {  // 101, 103
  static std::atomic<bool> described{false};
  struct Sleeps : std::exception {
    const char* what() const noexcept override {
      described = true;
      sleep_for(5ms);
      return "after a sleep";
    }
  };
  const Child c = child([] {
    run(
        [] {
          go([] { throw Sleeps(); });
          while (!described) yield();
        },
        Machine{1, 1}.config());
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("after a sleep")) << c.report();
}

TEST(PanicReport, DeferThatPanicsDuringUnwindingReportsBoth) {
  const Child c = child([] {
    run([] {
      try {
        // A condition, since a compiler that sees that the deferred call always throws drops the handler below.
        Defer d{[] {
          if (goid() != 0) panic("second");
        }};
        panic("first");
      } catch (const Panic&) {
        std::puts("caught");
      }
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("first")) << c.report();
  EXPECT_TRUE(c.says("second")) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

TEST(PanicReport, DuringGoexitIsReported) {  // 95
  const Child c = child([] {
    run([] {
      go([] {
        Defer d{[] { panic("after goexit"); }};
        goexit();
      });
      (void)make_chan<int>().recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("after goexit")) << c.report();
}

TEST(PanicReport, ACatchAllThatSwallowsGoexitIsFatalAndNamed) {  // 115
  const Child c = child([] {
    run([] {
      go({.name = "swallower"}, [] {
        try {
          goexit();
        } catch (...) {
        }
        std::puts("went on");
      });
      for (;;) yield();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("fatal error: ")) << c.report();
  EXPECT_TRUE(c.says("swallower")) << c.report();
}

// std::exception_ptr keeps the token alive: its destructor is no witness then.
TEST(PanicReport, ACatchAllThatKeepsGoexitIsFatalWhenTheGoroutineEnds) {  // 115
  static std::exception_ptr kept;
  const Child another = child([] {
    run([] {
      go({.name = "keeper"}, [] {
        try {
          goexit();
        } catch (...) {
          kept = std::current_exception();
        }
        std::puts("went on");
      });
      if (settle(1, 30s)) std::puts("ended");
    });
  });
  const Child first = child([] {
    run([] {
      try {
        goexit();
      } catch (...) {
        kept = std::current_exception();
      }
      std::puts("went on");
    });
    std::puts("ended");
  });
  for (const Child* c : {&another, &first}) {
    if (!c->ran) continue;
    EXPECT_EQ(c->status, 2) << c->report();
    EXPECT_EQ(c->out, "went on\n") << c->report();
    EXPECT_TRUE(c->says("fatal error: weft: catch (...) swallowed goexit in goroutine "))
        << c->report();
  }
  EXPECT_TRUE(another.says("keeper")) << another.report();
}

TEST(PanicReport, TracebackLevels) {  // 108
  auto body = [] {
    run([] {
      go_parked("chan receive", [] { (void)make_chan<int>().recv(); });
      throw_point(1);
    });
  };
  const Child none = child(body, {.env = {"WEFT_TRACEBACK=none"}});
  const Child single = child(body, {.env = {"WEFT_TRACEBACK=single"}});
  const Child unset = child(body);
  const Child all = child(body, {.env = {"WEFT_TRACEBACK=all"}});
  const Child system = child(body, {.env = {"WEFT_TRACEBACK=system"}});
  const Child crash = child(body, {.env = {"WEFT_TRACEBACK=crash"}});
  for (const Child* c : {&none, &single, &unset, &all, &system})
    EXPECT_EQ(c->status, 2) << c->report();
  for (const Child* c : {&none, &single, &unset, &all, &system, &crash})
    EXPECT_EQ(c->line("panic: "), "panic: from the throw point") << c->report();
  EXPECT_FALSE(none.says("goroutine ")) << none.report();
  EXPECT_FALSE(none.says("throw_point(")) << none.report();
  for (const Child* c : {&single, &unset}) {
    EXPECT_TRUE(c->says("goroutine 1 [running]:")) << c->report();
    EXPECT_FALSE(c->says("[chan receive]")) << c->report();
  }
  for (const Child* c : {&all, &system, &crash}) {
    EXPECT_TRUE(c->says("\ngoroutine 1 ")) << c->report();
    EXPECT_TRUE(c->says(" [running]:")) << c->report();
    EXPECT_TRUE(c->says("[chan receive]")) << c->report();
  }
  EXPECT_EQ(crash.signal, SIGABRT) << crash.report();
}

TEST(PanicReport, OfADeepStackElidesItsMiddle) {  // 111
  const Child c = child([] { run([] { throw_point(500); }); });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("frames elided")) << c.report();
  EXPECT_LT(c.count("throw_point"), 260) << c.report();
}

TEST(PanicReport, UnderRuntimeGoesToOnUncaughtAndThenTerminates) {
  const Child c = child([] {
    std::set_terminate([] {
      std::puts("terminate");
      std::_Exit(33);
    });
    Config config;
    config.on_uncaught = [](const UncaughtReport& r) {
      std::printf("%s: %s\n", r.name.c_str(), r.message.c_str());
    };
    Runtime rt{config};
    if (rt.start()) std::_Exit(9);
    rt.go({.name = "thrower"}, [] { throw_point(1); });
    (void)settle(0, 30s);
    return 1;
  });
  EXPECT_EQ(c.status, 33) << c.report();
  EXPECT_EQ(c.out, "thrower: from the throw point\nterminate\n") << c.report();
  EXPECT_TRUE(c.says("panic: from the throw point")) << c.report();
}

TEST(PanicReport, WithStderrClosedStillExitsWith2) {
  const Child c = child([] { run([] { panic("nobody hears it"); }); }, {.close_stderr = true});
  EXPECT_EQ(c.status, 2) << c.report();
}

TEST(PanicReport, InWaitGroupGoNeverLetsTheWaiterGoOn) {  // 126
  for (int round = 0; round < 5; round++) {
    const Child c = child([] {
      return run(
          [] {
            WaitGroup wg;
            wg.go([] { panic("in the body"); });
            wg.wait();
            return 0;
          },
          Machine{2, 1}.config());
    });
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 2) << c.report();
    EXPECT_TRUE(c.says("panic: in the body")) << c.report();
  }
}

std::string text_of(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(PanicReport, IsAppendedToTheCrashOutputToo) {
  const std::string path = testing::TempDir() + "weft-crash-output-" + std::to_string(::getpid());
  ::unlink(path.c_str());
  const ChildOptions options{.env = {"WEFT_CRASH_OUTPUT=" + path}};
  const Child panics = child([] {
    run([] {
      std::fputs("not of the report\n", stderr);
      panic("for the file");
    });
  }, options);
  EXPECT_EQ(panics.status, 2) << panics.report();
  EXPECT_EQ("not of the report\n" + text_of(path), panics.err);
  const std::string first = text_of(path);
  const Child stuck = child([] { run([] { make_chan<int>().send(1); }); }, options);
  EXPECT_EQ(stuck.status, 2) << stuck.report();
  EXPECT_EQ(text_of(path), first + stuck.err);
  const Child quiet = child([] { run([] {}); }, options);
  EXPECT_EQ(quiet.status, 0) << quiet.report();
  EXPECT_EQ(text_of(path), first + stuck.err);
  ::unlink(path.c_str());
  const Child refused = child([] { run([] {}); }, {.env = {"WEFT_CRASH_OUTPUT=/nowhere/at/all"}});
  EXPECT_EQ(refused.status, 2) << refused.report();
  EXPECT_TRUE(refused.says("crash_output")) << refused.report();
}

TEST(PanicReport, GoesToTheCrashOutputsDescriptor) {
  const Child c = child([] {
    static int ends[2];
    if (::pipe(ends) != 0 || set_crash_output(ends[1])) return 1;
    ::close(ends[1]);
    Runtime rt{{.on_uncaught = [](const UncaughtReport&) {
      char text[64] = "";
      const ssize_t n = ::read(ends[0], text, sizeof text - 1);  // it is there already
      ::_exit(n > 0 && std::string(text).rfind("panic: for the pipe\n", 0) == 0 ? 7 : 1);
    }}};
    if (rt.start()) return 3;
    rt.go([] { panic("for the pipe"); });
    for (;;) ::pause();
    return 1;
  });
  EXPECT_EQ(c.status, 7) << c.report();
}

}  // namespace
}  // namespace weft::test
