// A program that is linked with weft-throwtrace: where exceptions were thrown first.
#include <stdexcept>
#include <string>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {

[[gnu::noinline]] void throws_first(int depth) {
  if (depth > 0) throws_first(depth - 1);
  if (depth == 0) throw std::runtime_error("not a panic");
  asm volatile("");
}
[[gnu::noinline]] void throws_again() {
  try {
    throws_first(2);
  } catch (const std::exception&) {
    throw;
  }
}
[[gnu::noinline]] void rethrows(const std::exception_ptr& e) {
  std::rethrow_exception(e);
  asm volatile("");
}

namespace {

TEST(ThrowTrace, OfAnExceptionThatAHandlerThrowsAgain) {
  const Child c = child([] { run([] { throws_again(); }); });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.line("panic: "), "panic: not a panic") << c.report();
  EXPECT_NE(c.goroutine("goroutine 1 ").find("throws_first("), std::string::npos) << c.report();
  EXPECT_NE(c.goroutine("goroutine 1 ").find("throws_again("), std::string::npos) << c.report();
}

TEST(ThrowTrace, OfAnExceptionOfAnotherGoroutine) {
  const Child c = child([] {
    run([] {
      Chan<std::exception_ptr> failed = make_chan<std::exception_ptr>();
      go([failed] {
        try {
          throws_first(1);
        } catch (...) {
          failed.send(std::current_exception());
        }
      });
      rethrows(*failed.recv());
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_NE(c.goroutine("goroutine 1 ").find("rethrows("), std::string::npos) << c.report();
  EXPECT_TRUE(c.says("raised by goroutine ")) << c.report();
  EXPECT_TRUE(c.says("throws_first(")) << c.report();
}

TEST(ThrowTrace, AddsNothingToOneThatIsThrownOnce) {
  const Child c = child([] { run([] { throws_first(1); }); });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_FALSE(c.says("raised by")) << c.report();
  EXPECT_NE(c.goroutine("goroutine 1 ").find("throws_first("), std::string::npos) << c.report();
}

TEST(ThrowTrace, ExceptionsWorkAsWithoutIt) {
  each_run([] {
    WaitGroup wg;
    std::atomic<int> caught{0};
    for (int i = 0; i < 50; i++)
      wg.go([&] {
        for (int k = 0; k < 20; k++) {
          try {
            throws_again();
          } catch (const std::runtime_error& e) {
            yield();
            if (std::string(e.what()) == "not a panic") caught++;
          }
        }
      });
    wg.wait();
    EXPECT_EQ(caught.load(), 1000);
  });
}

}  // namespace
}  // namespace weft::test
