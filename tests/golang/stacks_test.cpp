// Stacks as a whole: what idle ones give back, how many there may be, how deep goroutines come.
#include <string>

#include "tests/support/child.hpp"
#include "tests/support/internals.hpp"
#include "tests/support/support.hpp"

namespace weft::test {

[[gnu::noinline]] int deep_on_the_stack(int kilobytes) {
  volatile char frame[1024];
  for (int i = 0; i < 1024; i += 64) frame[i] = static_cast<char>(kilobytes);
  return kilobytes == 0 ? frame[0] : deep_on_the_stack(kilobytes - 1) + frame[64];
}

namespace {

using namespace std::chrono_literals;

TEST(Stacks, ThoseThatNobodyWantsGiveTheirPagesBack) {
  if (WEFT_ASAN || WEFT_TSAN) GTEST_SKIP() << "a sanitizer's shadow outweighs the stacks";
  in_run({.procs = 1, .seed = 1}, [] {
    constexpr int kMany = 2000;
    auto gate = make_chan<void>();
    WaitGroup wg;
    for (int i = 0; i < kMany; i++)
      wg.go([=] {
        deep_on_the_stack(40);
        (void)gate.recv();
      });
    while (num_goroutines() > 1 && rt::stack_stats().bound < kMany) yield();
    gate.close();
    wg.wait();
    const std::size_t before = resident_bytes();
    const std::size_t trimmed = rt::stack_stats().trimmed;  // by earlier tests
    EXPECT_TRUE(eventually([trimmed] {
      sleep_for(50ms);
      return rt::stack_stats().trimmed - trimmed >= kMany - 256;
    })) << rt::stack_stats().trimmed - trimmed;
    EXPECT_LT(resident_bytes() + kMany * (std::size_t{30} << 10), before);
    // They serve again.
    std::atomic<int> sum{0};
    for (int i = 0; i < kMany; i++) wg.go([&] { sum += deep_on_the_stack(3) != 7; });
    wg.wait();
    EXPECT_EQ(sum.load(), kMany);
  });
}

TEST(Stacks, BeyondTheLimitGoroutinesWaitForOne) {
  std::atomic<int> ended{0};
  run(
      [&] {
        auto gate = make_chan<void>();
        for (int i = 0; i < 500; i++)
          go([&, gate] {
            (void)gate.recv();
            ended++;
          });
        EXPECT_TRUE(eventually([] { return rt::stack_stats().refused > 0; }));
        gate.close();
        EXPECT_TRUE(settle(1, 30s));
        EXPECT_GT(rt::stack_stats().refused, 0u);
        EXPECT_LE(rt::stack_stats().carved, 129u);  // 32 MiB, and main has its own
        EXPECT_FALSE(try_go({.stack_bytes = 64 << 20}, [] {}));
      },
      {.procs = 2, .stacks_bytes_max = 40 << 20});
  EXPECT_EQ(ended.load(), 500);
}

TEST(Stacks, HowDeepGoroutinesComeIsReportedBySite) {
  const Child c = child([] {
    run([] {
      WaitGroup wg;
      for (int i = 0; i < 10; i++) wg.go([] { deep_on_the_stack(100); });
      for (int i = 0; i < 5; i++) wg.go([] { yield(); });
      wg.wait();
      // A stack is looked at when its goroutine has left it.
      StackStats s;
      eventually([&] {
        s = stack_stats();
        std::uint64_t seen = 0;
        for (const StackSite& site : s.sites) seen += site.goroutines;
        return seen == 15;
      });
      for (const StackSite& site : s.sites)
        std::printf("%llu %zu %zu\n", static_cast<unsigned long long>(site.goroutines), site.deepest, site.recommended);
    });
  }, {.env = {"WEFT_DEBUG=stacks", "WEFT_PROCS=2"}});
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_TRUE(c.says("weft: how deep goroutines came")) << c.report();
  EXPECT_TRUE(c.says("10 goroutines of ")) << c.report();
  EXPECT_TRUE(c.says("stack_bytes = ")) << c.report();
  unsigned long long n = 0;
  std::size_t deepest = 0, recommended = 0;
  ASSERT_EQ(std::sscanf(c.out.c_str(), "%llu %zu %zu", &n, &deepest, &recommended), 3) << c.report();
  EXPECT_EQ(n, 10u);
  EXPECT_GE(deepest, 100u << 10);
  EXPECT_LE(deepest, 160u << 10);
  EXPECT_GE(recommended, 2 * deepest);
}

TEST(Stacks, StatsSayWhatThereIs) {
  in_run({.procs = 1, .seed = 1}, [] {
    auto gate = make_chan<void>();
    for (int i = 0; i < 20; i++) go([=] { (void)gate.recv(); });
    while (stack_stats().bound < 21) yield();
    const StackStats s = stack_stats();
    EXPECT_FALSE(s.guard.empty());
    EXPECT_GE(s.made, 20u);
    EXPECT_EQ(s.refused, 0u);
    EXPECT_TRUE(s.sites.empty());
    gate.close();
  });
}

}  // namespace
}  // namespace weft::test
