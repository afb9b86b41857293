// Copyable stacks: what ends a process, and says why.
#include <cstdio>
#include <string>

#include "tests/support/child.hpp"
#include "tests/support/internals.hpp"
#include "tests/support/support.hpp"

namespace weft::test {

[[gnu::noinline]] int recurses_on_a_copyable_stack(int n) {
  volatile char frame[512];
  frame[0] = static_cast<char>(n);
  return n < 0 ? 0 : recurses_on_a_copyable_stack(n + 1) + frame[0];
}

namespace {

const Spawn kCopyable{.stack = Stack::Copyable};

TEST(CopyableCrash, OverflowNamesTheKindAndTheGoroutine) {
  const Child c = child([] {
    run([] {
      auto gate = make_chan<void>();
      for (int i = 0; i < 100; i++) go(kCopyable, [gate] { (void)gate.recv(); });
      yield();
      go({.name = "deep", .stack = Stack::Copyable}, [] {
        yield();
        recurses_on_a_copyable_stack(0);
      });
      (void)gate.recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("fatal error: stack overflow")) << c.report();
  EXPECT_TRUE(c.says("\"deep\" [running]: copyable stack [")) << c.report();
  EXPECT_TRUE(c.says("recurses_on_a_copyable_stack(")) << c.report();
}

TEST(CopyableCrash, ATouchOfAForeignStackNamesBoth) {
#if WEFT_ASAN || WEFT_TSAN
  GTEST_SKIP() << "a sanitizer watches the stacks";
#endif
  const Child c = child([] {
    run([] {
      auto addresses = make_chan<int*>(1);
      auto ids = make_chan<std::uint64_t>(1);
      auto gate = make_chan<void>();
      go(kCopyable, [=] {
        int mine = 7;
        ids.send(goid());
        addresses.send(&mine);
        (void)gate.recv();
      });
      int* theirs = *addresses.recv();
      until_parked(*ids.recv(), "chan receive");
      *theirs = 8;
    });
  }, {.env = {"WEFT_DEBUG=copytraps", "WEFT_PROCS=1"}});
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("fatal error: weft: goroutine 1 touches the copyable stack of goroutine ")) << c.report();
  EXPECT_TRUE(c.says("(chan receive)")) << c.report();
  EXPECT_TRUE(c.says("goroutine 1 ")) << c.report();
}

TEST(CopyableCrash, TooLargeOrOnTheHostsThreadIsRefused) {
  const Child large = child([] { run([] { go({.stack = Stack::Copyable, .stack_bytes = 2 << 20}, [] {}); }); });
  EXPECT_EQ(large.status, 2) << large.report();
  EXPECT_TRUE(large.says("fatal error: weft: Stack::Copyable of more than 1 MiB")) << large.report();
  const Child host = child([] {
    Runtime rt;
    if (rt.start()) return 1;
    rt.go({.stack = Stack::Copyable, .main_thread = true}, [] {});
    return 0;
  });
  EXPECT_NE(host.status, 0) << host.report();
  EXPECT_TRUE(host.says("Stack::Copyable with Spawn::main_thread")) << host.report();
}

}  // namespace
}  // namespace weft::test
