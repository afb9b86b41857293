// The kernel refuses memory from some call on, under a whole program (WEFT_FAULT): goroutines wait
// for a stack until there is one again; when there is none for too long, the program ends and says
// for whom.
#include <string>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

constexpr int kGoroutines = 400;
constexpr int kRefusalsMax = 40;  // by then all that this program maps has been mapped

/// Goroutine 1 runs, and many more that keep their stacks for an hour.
void keeps_stacks() {
  run(
      [] {
        std::puts("main runs");
        for (int i = 0; i < kGoroutines; i++) go([] { sleep_for(1h); });
        sleep_for(1h);
      },
      Machine{2, 1}.config());
}

/// The same number, each of which wants a mapping of its own and ends after a while.
int gives_them_back() {
  return run(
      [] {
        std::atomic<int> ended{0};
        for (int i = 0; i < kGoroutines; i++)
          go({.stack_bytes = 2 << 20}, [&] {
            sleep_for(1ms);
            ended++;
          });
        settle(1, kPatience);
        if (rt::stack_stats().refused > 0) std::puts("ran short");
        return ended == kGoroutines ? 0 : 1;
      },
      Machine{2, 1}.config());
}

TEST(NoStack, IsFatalForWhomThereIsNoneWhenNobodyGivesOneBack) {
  bool first_had_none = false, another_had_none = false;
  // Each call is an index of this loop; the earlier ones refuse what comes before stacks.
  for (int n = 1; n < kRefusalsMax && !another_had_none; n++) {
    const Child c =
        child(keeps_stacks, {.env = {"WEFT_FAULT=mmap:" + std::to_string(n) + "-:ENOMEM"}});
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 2) << n << c.report();
    const std::string line = c.line("fatal error: ");
    const std::string none = "fatal error: out of memory: no stack for goroutine ";
    if (line == none + "1") {
      first_had_none = true;
      EXPECT_EQ(c.out, "") << n << c.report();
      EXPECT_TRUE(c.says("goroutine 1 [runnable]:")) << n << c.report();
    } else if (line.rfind(none, 0) == 0) {
      another_had_none = true;
      EXPECT_EQ(c.out, "main runs\n") << n << c.report();
      EXPECT_TRUE(c.says("goroutine 1 [sleep]:")) << n << c.report();
      EXPECT_TRUE(c.says("\ngoroutine " + line.substr(none.size()) + " [runnable"))
          << n << c.report();
    } else {
      EXPECT_EQ(line.rfind("fatal error: out of memory: ", 0), 0u) << n << c.report();
    }
    if (HasFailure()) return;
  }
  if (in_child()) return;
  EXPECT_TRUE(first_had_none);
  EXPECT_TRUE(another_had_none);
}

TEST(NoStack, WaitsUntilThereIsMemoryAgain) {
  const Child c = child(gives_them_back, {.env = {"WEFT_FAULT=mmap:30-200:ENOMEM"}});
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_EQ(c.out, "ran short\n") << c.report();
  EXPECT_EQ(c.count("fatal error"), 0) << c.report();
}

}  // namespace
}  // namespace weft::test
