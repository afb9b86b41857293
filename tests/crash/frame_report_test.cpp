// What is printed when deferred calls panic, recover and panic again: Go's list of panics, and the stack of the throw.
#include <stdexcept>
#include <string>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {

// Names that a traceback must show; not in an anonymous namespace, so that they can be resolved from the symbol table.
[[gnu::noinline]] void deferred_of_one() {
  panic("panic one");
  asm volatile("");
}
[[gnu::noinline]] void deferred_of_two() {
  panic("panic two");
  asm volatile("");
}
[[gnu::noinline]] void function_two() {
  func([](Frame<>& f) {
    f.defer(deferred_of_two);
    panic("hello");
  });
  asm volatile("");
}
[[gnu::noinline]] void function_one() {
  func([](Frame<>& f) {
    f.defer(deferred_of_one);
    function_two();
  });
  asm volatile("");
}
[[gnu::noinline]] void rethrow_point(const std::exception_ptr& e) {
  std::rethrow_exception(e);
  asm volatile("");
}
[[gnu::noinline]] void first_throw_point() {
  panic("thrown twice");
  asm volatile("");
}

namespace {

using namespace std::chrono_literals;

/// What stderr begins with.
void expect_begins(const Child& c, const std::string& text) {
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.substr(0, text.size()), text) << c.report();
}

TEST(FrameReport, ADeferredCallThatRecoversItsOwnPanicLeavesTheFirst) {  // 90: RecursivePanic3
  expect_begins(child([] {
                  run([] {
                    func([](Frame<>& f) {
                      f.defer([] {
                        func([](Frame<>& g) {
                          g.defer([&] { (void)g.recover(); });
                          panic("second panic");
                        });
                      });
                      panic("first panic");
                    });
                  });
                }),
                "panic: first panic\n\n");
}

TEST(FrameReport, ARecoveredPanicIsMarkedWhileItsDeferredCallPanics) {  // 90: RecursivePanic4
  expect_begins(child([] {
                  run([] {
                    func([](Frame<>& f) {
                      f.defer([&] {
                        (void)f.recover();
                        panic("second panic");
                      });
                      panic("first panic");
                    });
                  });
                }),
                "panic: first panic [recovered]\n\tpanic: second panic\n\n");
}

TEST(FrameReport, WhatIsOverIsNotInTheList) {  // 90: RecursivePanic5
  expect_begins(child([] {
                  run([] {
                    func([](Frame<>& f) {
                      f.defer([&] { (void)f.recover(); });
                      f.defer([&] {
                        (void)f.recover();
                        panic("second panic");
                      });
                      panic("first panic");
                    });
                    panic("third panic");
                  });
                }),
                "panic: third panic\n\n");
}

TEST(FrameReport, TheSameValueIsPrintedOnce) {  // 91: RepanickedPanic, DoublePanicWithSameValue
  expect_begins(child([] {
                  run([] {
                    func([](Frame<>& f) {
                      f.defer([&] { panic(*f.recover()); });
                      panic("message");
                    });
                  });
                }),
                "panic: message [recovered, repanicked]\n\n");
  expect_begins(child([] {
                  run([] {
                    func([](Frame<>& f) {
                      f.defer([&] { std::rethrow_exception(f.recover()->exception()); });
                      throw std::runtime_error("of the standard library");
                    });
                  });
                }),
                "panic: of the standard library [recovered, repanicked]\n\n");
}

TEST(FrameReport, RepanickedInTheMiddle) {  // 91: RepanickedMiddlePanic
  expect_begins(child([] {
                  run([] {
                    func([](Frame<>& f) {
                      f.defer([&] {
                        (void)f.recover();
                        panic("outer");
                      });
                      func([](Frame<>& g) {
                        g.defer([&] { panic(*g.recover()); });
                        func([](Frame<>& h) {
                          h.defer([&] {
                            (void)h.recover();
                            panic("middle");
                          });
                          panic("inner");
                        });
                      });
                    });
                  });
                }),
                "panic: inner [recovered]\n\tpanic: middle [recovered, repanicked]\n\tpanic: outer\n\n");
}

TEST(FrameReport, RepanickedWithAnotherInBetween) {  // 91: RepanickedPanicSandwich
  expect_begins(child([] {
                  run([] {
                    std::optional<Panic> outer;
                    func([&](Frame<>& f) {
                      f.defer([&] {
                        (void)f.recover();
                        panic(*outer);
                      });
                      func([&](Frame<>& g) {
                        g.defer([&] {
                          outer = g.recover();
                          panic("inner");
                        });
                        panic("outer");
                      });
                    });
                  });
                }),
                "panic: outer [recovered]\n\tpanic: inner [recovered]\n\tpanic: outer\n\n");
}

TEST(FrameReport, PanicsInNestedDefersShowAllFramesInOrder) {  // 92: PanicTraceback
  const Child c = child([] { run([] { function_one(); }); });
  expect_begins(c, "panic: hello\n\tpanic: panic two\n\tpanic: panic one\n\n");
  const std::string g = c.goroutine("goroutine 1 ");
  std::size_t at = 0;
  for (const char* name : {"deferred_of_one(", "deferred_of_two(", "function_two(", "function_one("}) {
    at = g.find(name, at);
    ASSERT_NE(at, std::string::npos) << name << "\n" << c.report();
  }
}

TEST(FrameReport, APanicThatIsThrownAgainShowsWhereItWasRaised) {
  const Child c = child([] {
    run([] {
      std::exception_ptr kept;
      try {
        first_throw_point();
      } catch (...) {
        kept = std::current_exception();
      }
      rethrow_point(kept);
    });
  });
  expect_begins(c, "panic: thrown twice\n\n");
  EXPECT_NE(c.goroutine("goroutine 1 ").find("first_throw_point("), std::string::npos) << c.report();
}

TEST(FrameReport, APanicOfAnotherGoroutineShowsBothStacks) {
  const Child c = child([] {
    run([] {
      Chan<std::exception_ptr> failed = make_chan<std::exception_ptr>();
      go([failed] {
        try {
          first_throw_point();
        } catch (...) {
          failed.send(std::current_exception());
        }
      });
      rethrow_point(*failed.recv());
    });
  });
  expect_begins(c, "panic: thrown twice\n\n");
  EXPECT_NE(c.goroutine("goroutine 1 ").find("rethrow_point("), std::string::npos) << c.report();
  EXPECT_TRUE(c.says("raised by goroutine ")) << c.report();
  EXPECT_TRUE(c.says("first_throw_point(")) << c.report();
}

TEST(FrameReport, PanicDuringGoexitIsReported) {  // 95
  expect_begins(child([] {
                  run([] {
                    func([](Frame<>& f) {
                      f.defer([] { panic("hello"); });
                      goexit();
                    });
                  });
                }),
                "panic: hello\n\n");
}

TEST(FrameReport, GoexitInPanicOfTheLastGoroutinesIsADeadlock) {  // 94: GoexitInPanic
  const Child c = child([] {
    run([] {
      go([] {
        func([](Frame<>& f) {
          f.defer([] { goexit(); });
          panic("hello");
        });
      });
      goexit();
    });
  });
  expect_begins(c, "fatal error: no goroutines (main called runtime.Goexit) - deadlock!\n");
}

TEST(FrameReport, NoexceptEndsTheProgramBeforeFramesFurtherOut) {
  const Child c = child([] {
    run([] {
      func([](Frame<>& f) {
        f.defer([] { std::puts("not run"); });
        [&]() noexcept { panic("in a noexcept function"); }();
      });
    });
  });
  expect_begins(c, "panic: in a noexcept function\n\n");
  EXPECT_EQ(c.out, "");
}

TEST(FrameReport, NoexceptInADeferredCallNamesBoth) {
  expect_begins(child([] {
                  run([] {
                    func([](Frame<>& f) {
                      f.defer([]() noexcept { panic("second"); });
                      panic("first");
                    });
                  });
                }),
                "panic: first\n\tpanic: second\n\n");
}

TEST(FrameReport, DeferredCallsHaveRunBeforeAnUncaughtPanicIsReported) {
  const Child c = child([] {
    run([] {
      func([](Frame<>& f) {
        f.defer([] { std::puts("deferred"); });
        first_throw_point();
      });
    });
  });
  expect_begins(c, "panic: thrown twice\n\n");
  EXPECT_NE(c.goroutine("goroutine 1 ").find("first_throw_point("), std::string::npos) << c.report();
}

}  // namespace
}  // namespace weft::test
