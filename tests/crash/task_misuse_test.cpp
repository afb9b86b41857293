// Misuse of tasks that nobody catches, failures that nobody asks for, and what waits for tasks look like in a report.
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

void expect_panic(const std::function<void()>& f, const std::string& message) {
  const Child c = child([&] {
    run([&] {
      f();
      std::puts("went on");
    });
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("panic: " + message, 0), 0u) << "expected: " << message << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

TEST(TaskMisuse, GetTwice) {
  expect_panic(
      [] {
        Task<int> t = spawn([] { return 1; });
        t.get();
        t.get();
      },
      "weft: the result of a Task was asked for twice");
}

TEST(TaskMisuse, AnEmptyHandle) {
  expect_panic([] { Task<int>().get(); }, "weft: get of an empty Task");
  expect_panic([] { Task<void>().cancel(); }, "weft: cancel of an empty Task");
}

TEST(TaskMisuse, SelfJoin) {
  expect_panic(
      [] {
        auto self = std::make_shared<Task<void>>();
        auto go_on = make_chan<void>();
        *self = spawn([self, go_on] {
          go_on.recv();
          self->get();
        });
        go_on.send();
        self->get();
      },
      "weft: a task waits for itself");
}

TEST(TaskMisuse, SpawnAfterTheEndOfTheScope) {
  expect_panic(
      [] {
        Scope* kept = nullptr;
        Task<void> keeps;  // the scope's block, with the child that it has
        scope([&](Scope& s) {
          kept = &s;
          keeps = s.spawn([] {});
        });
        kept->spawn([] {});
      },
      "weft: spawn in a scope that has ended");
}

TEST(TaskMisuse, SpawnWhileNoRuntimeRuns) {
  const Child c = child([] {
    Task<int> t = spawn([] { return 1; });
    std::puts("went on");
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("fatal error: weft: go called while no runtime runs", 0), 0u) << c.report();
}

TEST(TaskMisuse, TheResultOfACancelledTaskIsAnUncaughtExceptionOutsideTasks) {
  const Child c = child([] {
    run([] {
      Task<int> t = spawn([] { return make_chan<int>().recv_or(); });
      t.cancel();
      t.get();
    });
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_NE(c.err.find("weft::Canceled"), std::string::npos) << c.report();
}

TEST(TaskReport, AFailureIsKeptForGetAndNotReported) {
  const Child c = child([] {
    const int status = run([] {
      Task<int> t = spawn([]() -> int { throw std::runtime_error("kept"); });
      t.wait();
      try {
        t.get();
      } catch (const std::runtime_error&) {
        std::puts("got it");
      }
    });
    std::printf("status %d\n", status);
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_EQ(c.out, "got it\nstatus 0\n") << c.report();
  EXPECT_EQ(c.err, "") << c.report();
}

TEST(TaskReport, AFailureThatNobodyAskedForIsLogged) {
  const Child c = child([] {
    run([] {
      {
        Task<void> t = spawn([] { throw std::runtime_error("lost"); });
        t.wait();
      }
      Task<void> u = spawn([] { make_chan<int>().recv(); });  // cancelled: no failure
    });
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_NE(c.err.find("failed, and nobody asked for its result: lost"), std::string::npos) << c.report();
  EXPECT_EQ(c.err.find("nobody asked", c.err.find("nobody asked") + 1), std::string::npos) << c.report();
}

TEST(TaskReport, AFailureThatLeavesTheScopeUncaughtEndsTheProgram) {
  expect_panic(
      [] {
        scope([](Scope& s) {
          s.spawn([] { panic("in a child"); });
          make_chan<int>().recv();
        });
      },
      "in a child");
}

TEST(TaskReport, ADeadlockNamesTheWaits) {
  const Child c = child([] {
    run([] {
      Task<void> t = spawn([] { scope([](Scope& s) { s.spawn([] { make_chan<int>().recv(); }); }); });
      t.get();
    });
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_NE(c.err.find("all goroutines are asleep - deadlock!"), std::string::npos) << c.report();
  EXPECT_NE(c.err.find("[task wait]"), std::string::npos) << c.report();
  EXPECT_NE(c.err.find("[scope end]"), std::string::npos) << c.report();
}

}  // namespace
}  // namespace weft::test
