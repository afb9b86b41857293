// Stack overflow is reported with the goroutine, where it was created and what to set, never silent
// corruption: under every way of guarding a stack, and however the stack is left.
#include <alloca.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {

// Each of these leaves its stack in a way of its own. Not in an anonymous namespace: reports name
// them.
[[gnu::noinline]] int recurse(int depth) {
  volatile char frame[256];
  frame[depth % 256] = static_cast<char>(depth);
  return depth < 0 ? 0 : recurse(depth + 1) + frame[depth % 256];
}

// The compiler probes such a frame page by page or not at all; the first touch may be its far end.
[[gnu::noinline]] int large_frame(size_t bytes) {
  volatile char* frame = static_cast<volatile char*>(alloca(bytes));
  for (size_t i = 0; i < bytes; i += 64) frame[i] = 1;
  return frame[bytes / 2];
}

inline int compare_and_recurse(const void* a, const void* b) {
  return recurse(1) > 0 ? 1 : std::memcmp(a, b, 4);
}

[[gnu::noinline]] void overflow_in_qsort() {
  int v[4] = {4, 3, 2, 1};
  std::qsort(v, 4, sizeof v[0], compare_and_recurse);
}

[[gnu::noinline]] void creates_the_overflowing_one(int how) {
  go({.name = "deep"}, [how] {
    if (how == 0) recurse(1);
    if (how == 1) large_frame(1 << 20);
    if (how == 2) overflow_in_qsort();
  });
  asm volatile("");
}

namespace {

using namespace std::chrono_literals;

// A sanitizer's own frames need more room, and its runtime may catch the fault first; the report
// must come all the same.
class Overflow : public testing::TestWithParam<const char*> {
 protected:
  static Child of(int how) {
    return child(
        [how] {
          run([how] {
            creates_the_overflowing_one(how);
            (void)make_chan<int>().recv();
          });
        },
        {.env = {std::string("WEFT_GUARD=") + GetParam(), "WEFT_STACK_BYTES=65536"}});
  }
  static void expect_report(const Child& c) {
    EXPECT_EQ(c.status, 2) << c.report();
    EXPECT_TRUE(c.says("fatal error: stack overflow")) << c.report();
    EXPECT_TRUE(c.says("-byte limit")) << c.report();
    EXPECT_TRUE(c.says("deep")) << "the goroutine's name is missing" << c.report();
    EXPECT_TRUE(c.says("creates_the_overflowing_one"))
        << "the creation site is missing" << c.report();
    EXPECT_TRUE(c.says("stack_bytes")) << "what to set is missing" << c.report();
    EXPECT_EQ(c.count("fatal error: "), 1) << c.report();
  }
};

TEST_P(Overflow, ByRecursionIsReported) {  // 88
  expect_report(of(0));
}

TEST_P(Overflow, ByAFrameOfAMebibyteIsReported) {  // 88
  expect_report(of(1));
}

TEST_P(Overflow, InACallbackFromQsortIsReported) {  // 88
  expect_report(of(2));
}

TEST_P(Overflow, IsNotRecoverable) {  // 88
  const Child c = child(
      [] {
        run([] {
          go({.name = "deep"}, [] {
            Defer d{[] { std::puts("deferred"); }};
            try {
              recurse(1);
            } catch (...) {
              std::puts("caught");
              throw;
            }
          });
          (void)make_chan<int>().recv();
        });
      },
      {.env = {std::string("WEFT_GUARD=") + GetParam(), "WEFT_STACK_BYTES=65536"}});
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
  EXPECT_TRUE(c.says("fatal error: stack overflow")) << c.report();
}

TEST_P(Overflow, AStackOfTheSizeAskedForHoldsWhatFits) {
  const Child c = child(
      [] {
        return run([] {
          Chan<int> c = make_chan<int>();
          // Half of the stack is used by one frame, in each of the classes.
          for (size_t bytes :
               {size_t{64} << 10, size_t{256} << 10, size_t{1} << 20, size_t{8} << 20}) {
            go({.stack_bytes = bytes}, [=] { c.send(large_frame(bytes / 2)); });
            if (c.recv() != 1) return 1;
          }
          return 0;
        });
      },
      {.env = {std::string("WEFT_GUARD=") + GetParam()}});
  EXPECT_EQ(c.status, 0) << c.report();
}

INSTANTIATE_TEST_SUITE_P(EveryGuard, Overflow,
                         testing::Values("install", "hole", "mprotect", "canary"),
                         [](const auto& info) { return std::string(info.param); });

TEST(OverflowOfMain, IsReportedWithItsOwnLimit) {  // 88
  const Child c = child([] { run([] { recurse(1); }); });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("fatal error: stack overflow")) << c.report();
  EXPECT_TRUE(c.says("goroutine 1 ")) << c.report();
}

TEST(OverflowUnderRuntime, IsReportedAndNotSilent) {  // 88
  const Child c = child([] {
    Runtime rt;
    if (rt.start()) std::_Exit(9);
    rt.go({.name = "deep"}, [] { recurse(1); });
    (void)settle(0, 30s);
    return 0;
  });
  EXPECT_NE(c.status, 0) << c.report();
  EXPECT_TRUE(c.says("stack overflow")) << c.report();
  EXPECT_TRUE(c.says("deep")) << c.report();
}

TEST(OverflowElsewhere, ASegvThatIsNoOverflowKeepsItsMeaning) {
  const Child c = child([] {
    run([] {
      int* volatile nowhere = reinterpret_cast<int*>(uintptr_t{16});
      *nowhere = 1;
    });
  });
  EXPECT_FALSE(c.says("stack overflow")) << c.report();
  EXPECT_TRUE(c.signal == SIGSEGV || c.status != 0) << c.report();
}

}  // namespace
}  // namespace weft::test
