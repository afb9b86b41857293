// Exceptions belong to goroutines: a goroutine that suspends while one is being handled gets its
// own back, wherever it goes on. A runtime that switches stacks without the language's exception
// state gives it somebody else's.
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

struct Mine : std::exception {
  uint64_t owner;
  int round;
  Mine(uint64_t o, int r) : owner(o), round(r) {}
};

// How a goroutine suspends inside a handler; each leads to a different way back.
void suspend(int how, const Chan<int>& c) {
  switch (how % 5) {
    case 0:
      yield();
      break;
    case 1:
      if (!c.try_send(1)) (void)c.try_recv();
      yield();
      break;
    case 2:
      sleep_for(std::chrono::microseconds(how % 20));
      break;
    case 3:
      (void)c.recv_for(std::chrono::microseconds(how % 10));
      break;
    default:
      blocking([] {});
      break;
  }
}

TEST(Exceptions, TwoThatSuspendInAHandlerRethrowTheirOwn) {  // 115
  each_run([] {
    constexpr int kRounds = scaled(10000, 1000);
    std::atomic<int> wrong{0};
    Chan<int> a = make_chan<int>(), b = make_chan<int>();
    WaitGroup wg;
    // Lockstep: each is inside its handler whenever the other runs.
    auto peer = [&](Chan<int> in, Chan<int> out, bool first) {
      const uint64_t me = goid();
      for (int i = 0; i < kRounds; i++) {
        try {
          try {
            throw Mine(me, i);
          } catch (const Mine&) {
            if (first) {
              out.send(i);
              (void)in.recv();
            } else {
              (void)in.recv();
              out.send(i);
            }
            throw;
          }
        } catch (const Mine& e) {
          if (e.owner != me || e.round != i) wrong++;
        } catch (...) {
          wrong++;
        }
      }
    };
    wg.go([&] { peer(a, b, true); });
    wg.go([&] { peer(b, a, false); });
    wg.wait();
    EXPECT_EQ(wrong.load(), 0);
  });
}

TEST(Exceptions, ManyThatMigrateInAHandlerRethrowTheirOwn) {  // 115
  each_run([] {
    constexpr int kGoroutines = 16;
    constexpr int kRounds = scaled(1000, 100);
    std::atomic<int> wrong{0}, moved{0};
    Chan<int> c = make_chan<int>();
    auto batch = [&] {
      WaitGroup wg;
      for (int g = 0; g < kGoroutines; g++)
        wg.go([&, g] {
          const uint64_t me = goid();
          for (int i = 0; i < kRounds; i++) {
            const pid_t before = thread_now();
            try {
              try {
                throw Mine(me, i);
              } catch (...) {
                suspend(i + g, c);
                if (thread_now() != before) moved++;
                throw;
              }
            } catch (const Mine& e) {
              if (e.owner != me || e.round != i) wrong++;
            }
          }
        });
      wg.wait();
    };
    batch();
    if (procs() > 1) {
      eventually([&] {
        if (moved < 100) batch();
        return moved >= 100;
      });
    }
    EXPECT_EQ(wrong.load(), 0);
  });
}

// Throws, catches, suspends and goes one deeper; on the way back every level rethrows what it
// caught.
void nested(int depth, uint64_t me, int round, const Chan<int>& c, std::atomic<int>& wrong) {
  if (depth == 0) return;
  const int mark = round * 100 + depth;
  try {
    throw Mine(me, mark);
  } catch (const Mine& e) {
    suspend(round + depth, c);
    try {
      nested(depth - 1, me, round, c, wrong);
      suspend(depth, c);
      const std::exception_ptr current = std::current_exception();
      try {
        std::rethrow_exception(current);
      } catch (const Mine& again) {
        if (again.owner != me || again.round != mark) wrong++;
      }
      throw;
    } catch (const Mine& again) {
      if (again.owner != me || again.round != mark) wrong++;
    }
    if (e.owner != me || e.round != mark) wrong++;
  }
}

TEST(Exceptions, NestedEightDeep) {  // 115
  each_run([] {
    std::atomic<int> wrong{0};
    Chan<int> c = make_chan<int>();
    WaitGroup wg;
    for (int g = 0; g < 8; g++)
      wg.go([&] {
        for (int i = 0; i < scaled(100, 20); i++) nested(8, goid(), i, c, wrong);
      });
    wg.wait();
    EXPECT_EQ(wrong.load(), 0);
  });
}

// Suspends in its destructor, which may run while an exception unwinds.
struct SuspendsWhenDestroyed {
  const Chan<int>& c;
  int how;
  int expected;
  std::atomic<int>& wrong;
  ~SuspendsWhenDestroyed() {
    if (std::uncaught_exceptions() != expected) wrong++;
    suspend(how, c);
    if (std::uncaught_exceptions() != expected) wrong++;
  }
};

TEST(Exceptions, UncaughtExceptionsAreCountedPerGoroutine) {  // 115
  each_run([] {
    std::atomic<int> wrong{0};
    Chan<int> c = make_chan<int>();
    WaitGroup wg;
    for (int g = 0; g < 8; g++)
      wg.go([&, g] {
        for (int i = 0; i < scaled(300, 50); i++) {
          if (std::uncaught_exceptions() != 0) wrong++;
          if ((g + i) % 2) {
            SuspendsWhenDestroyed s{c, i, 0, wrong};
          } else {
            try {
              SuspendsWhenDestroyed s{c, i, 1, wrong};
              throw Mine(goid(), i);
            } catch (const Mine& e) {
              if (e.owner != goid() || e.round != i || std::uncaught_exceptions() != 0) wrong++;
              // A destructor that unwinds inside a destructor that unwinds.
              try {
                struct Outer {
                  const Chan<int>& c;
                  std::atomic<int>& wrong;
                  ~Outer() {
                    try {
                      SuspendsWhenDestroyed inner{c, 3, 2, wrong};
                      throw 1;
                    } catch (int) {
                    }
                    if (std::uncaught_exceptions() != 1) wrong++;
                  }
                } outer{c, wrong};
                throw 2;
              } catch (int) {
              }
            }
          }
        }
      });
    wg.wait();
    EXPECT_EQ(wrong.load(), 0);
  });
}

TEST(Exceptions, ThrowingWhileAnotherUnwindsOnTheSameThread) {  // 115
  in_run({1, 1}, [] {
    // One goroutine is parked in a destructor in mid-unwinding; others throw and catch on the same
    // M.
    Chan<void> hold = make_chan<void>();
    std::atomic<int> wrong{0};
    struct Park {
      Chan<void> c;
      ~Park() { c.recv(); }
    };
    for (int g = 0; g < 10; g++)
      go_parked("chan receive", [=, &wrong] {
        try {
          Park p{hold};
          throw Mine(goid(), 7);
        } catch (const Mine& e) {
          if (e.owner != goid() || e.round != 7) wrong++;
        }
      });
    for (int i = 0; i < 1000; i++) {
      EXPECT_EQ(std::uncaught_exceptions(), 0);
      EXPECT_EQ(std::current_exception(), nullptr);
      try {
        throw i;
      } catch (int v) {
        ASSERT_EQ(v, i);
      }
    }
    hold.close();
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_EQ(wrong.load(), 0);
  });
}

TEST(Exceptions, TravelBetweenGoroutinesAsPointers) {
  each_run([] {
    Chan<std::exception_ptr> c = make_chan<std::exception_ptr>();
    // Whoever drops the last reference frees the exception, after a count that the standard library keeps and TSan does not
    // see. So under TSan that is always here, at the end.
    std::vector<std::exception_ptr> kept;
    for (int i = 0; i < 100; i++) {
      go([c, i] {
        try {
          throw Mine(goid(), i);
        } catch (...) {
          c.send(std::current_exception());
        }
      });
      try {
        const std::exception_ptr p = c.recv_or();
        if (kTsan) kept.push_back(p);
        std::rethrow_exception(p);
      } catch (const Mine& e) {
        ASSERT_EQ(e.round, i);
      }
    }
    EXPECT_TRUE(settle(1, 30s));
  });
}

TEST(Exceptions, GoexitInAHandlerEndsOnlyThatGoroutine) {
  each_run([] {
    std::atomic<int> ended{0};
    for (int g = 0; g < 20; g++)
      go([&] {
        Defer d{[&] { ended++; }};
        try {
          throw Mine(1, 2);
        } catch (const Mine&) {
          yield();
          goexit();
        }
      });
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_EQ(ended.load(), 20);
    EXPECT_EQ(std::current_exception(), nullptr);
  });
}

}  // namespace
}  // namespace weft::test
