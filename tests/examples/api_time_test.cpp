// The API by example, "Time": each line as a user writes it, compiled without warnings, and run.
#include <atomic>

#include <gtest/gtest.h>
#include <weft/runtime.hpp>
#include <weft/test.hpp>
#include <weft/time.hpp>

using namespace std::chrono_literals;

namespace {

TEST(Api, TimeLines) {
  weft::run([] {
    weft::Time before = weft::now();
    weft::sleep_for(2ms);
    weft::Time t0 = weft::now() + 2ms;
    weft::sleep_until(t0);
    weft::Time now = weft::now();
    EXPECT_GE(now - before, 4ms);
    static_assert(weft::Clock::is_steady);

    weft::Timer t{2ms};
    t.chan().recv();
    t.stop();
    t.reset(1ms);
    EXPECT_TRUE(t.chan().recv());

    weft::Ticker tick{1ms};
    int ticks = 0;
    for (weft::Time at : tick.chan()) {
      EXPECT_GT(at, now);
      if (++ticks == 3) break;
    }
    tick.reset(2ms);
    tick.stop();

    weft::RecvChan<weft::Time> c = weft::after(1ms);
    EXPECT_TRUE(c.recv());
    std::atomic<int> n{0};
    auto f = [&] { n++; };
    auto g = [&](int k) { n += k; };
    weft::Timer u = weft::after_func(1ms, f);
    weft::after_func(1ms, g, 10);
    while (n != 11) weft::yield();
    EXPECT_FALSE(u.stop());
    weft::Timer moved = std::move(u), none;
    moved = weft::after_func(1h, f);
    EXPECT_TRUE(moved.stop());
    EXPECT_TRUE(weft::settle(1, 30s));
  });
}

}  // namespace
