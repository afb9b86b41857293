// Wrong use of the collector's hook that nobody can recover from: message, exit status 2.
#include <weft/gc_hook.hpp>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

void expect_fatal(const Child& c, const std::string& message) {
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("fatal error: " + message, 0), 0u) << "expected: " << message << c.report();
}

TEST(GcMisuse, AStopOrASuspensionNeedsARuntime) {
  expect_fatal(child([] { gc::stop_world(); }), "weft: gc::stop_world called while no runtime runs");
  expect_fatal(child([] { gc::suspend(1); }), "weft: gc::suspend called while no runtime runs");
  expect_fatal(child([] { gc::at_next_safepoint([](std::uint64_t, void*) {}, nullptr); }),
               "weft: gc::at_next_safepoint called while no runtime runs");
}

TEST(GcMisuse, WithoutARuntimeAFreezeFindsNobody) {
  const Child c = child([] {
    unsigned views = 0;
    if (!gc::freeze_world()) return 3;
    gc::each_stack([](const gc::StackView&, void* n) { ++*static_cast<unsigned*>(n); }, &views);
    gc::thaw_world();
    return static_cast<int>(views);
  });
  if (c.ran) {
    EXPECT_EQ(c.status, 0) << c.report();
  }
}

#ifndef NDEBUG
TEST(GcMisuse, InsideAFreezeARuntimeCallAndAnAllocationAreFatalInBuildsWithChecks) {
  const std::string message = "weft: the runtime was called, or memory asked of it, while the caller has frozen the world";
  const Child call = child([] {
    run([] {
      ASSERT_TRUE(gc::freeze_world());
      yield();
    });
  });
  expect_fatal(call, message);
  const Child block = child([] {
    run([] {
      ASSERT_TRUE(gc::freeze_world());
      Chan<int> c = make_chan<int>(3);
    });
  });
  expect_fatal(block, message);
}
#endif

TEST(GcMisuse, AnUncaughtNestedFreezeIsReportedAsAPanicOfAWorldThatRuns) {
  const Child c = child([] {
    run([] {
      for (int i = 0; i < 4; i++) go([] { for (;;) yield(); });
      yield();
      gc::freeze_world();
      gc::freeze_world();
    });
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("gc::freeze_world while the caller has frozen the world, which goes on now")) << c.report();
}

}  // namespace
}  // namespace weft::test
