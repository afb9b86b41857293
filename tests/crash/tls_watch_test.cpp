// WEFT_DEBUG=tls: addresses of thread-local variables that somebody keeps across a migration are told.
#include "tests/golang/errno_use.hpp"
#include "tests/support/child.hpp"
#include "tests/support/migrate.hpp"

namespace weft::test {
namespace {

Child watched(int (*use)(int, void (*)())) {
  return child(
      [use] {
        return run(
            [use] {
              const Traffic traffic;
              Chan<int> done = make_chan<int>();
              go({.name = "keeper"}, [use, done] { done.send(use(5, migrate)); });
              (void)done.recv();
            },
            Machine{2, 1}.config());
      },
      {.env = {"WEFT_DEBUG=tls"}});
}

#ifndef NDEBUG

TEST(TlsWatch, NamesWhoKeepsTheAddressOfErrno) {
  const Child c = watched(stale::errno_around);
  if (!c.ran) return;
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_TRUE(c.says("\"keeper\" went on on another thread while ")) << c.report();
  EXPECT_TRUE(c.says("keeps the address of errno of the thread that it left in r")) << c.report();
  if (capabilities().symbols) {
    EXPECT_TRUE(c.says("stale::errno_around (") && c.says("errno_use.cpp:")) << c.report();
  }
  EXPECT_EQ(c.count("errno_around"), 1) << "once for each place\n" << c.report();
}

TEST(TlsWatch, IsSilentAboutCodeThatAsksAgain) {
  if (kTsan || kAsan) GTEST_SKIP() << "the sanitizers' checks of each access leave its address in a register, unused";
  const Child c = watched(cured::errno_around);
  if (!c.ran) return;
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_FALSE(c.says("went on on another thread")) << c.report();
}

#else

TEST(TlsWatch, SaysThatItNeedsABuildWithChecks) {
  const Child c = watched(cured::errno_around);
  if (!c.ran) return;
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_TRUE(c.says("WEFT_DEBUG=tls needs a build with checks")) << c.report();
  EXPECT_FALSE(c.says("went on on another thread")) << c.report();
}

#endif

}  // namespace
}  // namespace weft::test
