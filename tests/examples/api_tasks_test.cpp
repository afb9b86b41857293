// The API by example, "Tasks and scopes": each line as a user writes it, compiled without warnings, and run.
#include <sys/eventfd.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <weft/runtime.hpp>
#include <weft/select.hpp>
#include <weft/task.hpp>
#include <weft/time.hpp>

using namespace std::chrono_literals;

namespace {

int fetch(int what) {
  weft::sleep_for(1ms);
  return what;
}

TEST(Api, TaskLines) {
  weft::run([] {
    weft::Task<int> t = weft::spawn([] { return 42; });
    int v = t.get();
    EXPECT_EQ(v, 42);
    int used = 0;
    auto use = [&](int a, int b) { used = a + b; };
    int x = 1, y = 2;
    weft::scope([&](weft::Scope& s) {
      auto a = s.spawn([&] { return fetch(x); });
      auto b = s.spawn([&] { return fetch(y); });
      use(a.get(), b.get());
    });
    EXPECT_EQ(used, 3);
    EXPECT_FALSE(weft::current_context().err());
    int fd = ::eventfd(0, EFD_NONBLOCK);
    weft::Task<void> u = weft::spawn([] { weft::sleep_for(1h); });
    EXPECT_EQ(weft::select(weft::ready(u), weft::ready(fd, weft::Io::Read), weft::timeout(1ms)), 2);
    u.cancel();
    EXPECT_EQ(weft::select(weft::ready(u), weft::ready(fd, weft::Io::Read), weft::timeout(1min)), 0);
    EXPECT_THROW(u.get(), weft::Canceled);
    ::close(fd);
  });
}

TEST(Api, SubmitLines) {
  weft::Runtime rt{{.procs = 2}};
  ASSERT_FALSE(rt.start());
  weft::Task<int> f = rt.submit([] { return 42; });
  EXPECT_EQ(f.get(), 42);
  weft::Task<int> g = rt.submit([](int a, int b) { return a * b; }, 6, 7);
  EXPECT_EQ(g.get(), 42);
  EXPECT_TRUE(rt.stop(1s).unwound.empty());
}

}  // namespace
