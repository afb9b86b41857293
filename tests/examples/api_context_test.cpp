// The API by example, "Context": each line as a user writes it, compiled without warnings, and run.
#include <string>

#include <gtest/gtest.h>
#include <weft/context.hpp>
#include <weft/mutex.hpp>
#include <weft/runtime.hpp>
#include <weft/select.hpp>
#include <weft/test.hpp>
#include <weft/wait_group.hpp>

using namespace std::chrono_literals;

namespace {

int step() { return 1; }

TEST(Api, ContextLines) {
  weft::run([] {
    weft::Chan<int> out = weft::make_chan<int>();
    {
      auto [ctx, cancel] = weft::with_timeout(weft::background(), 3s);
      weft::go([ctx = ctx, out] {
        while (!ctx.err()) out.send(step());
      });
      EXPECT_EQ(out.recv_or(), 1);
      const weft::RecvChan<void>& done = ctx.done();
      std::error_code e = ctx.err();
      EXPECT_FALSE(e);
      std::exception_ptr why = ctx.cause();
      EXPECT_EQ(why, nullptr);
      std::optional<weft::Time> at = ctx.deadline();
      EXPECT_TRUE(at);
      cancel();
      EXPECT_FALSE(done.recv());
      EXPECT_EQ(ctx.err(), weft::Errc::canceled);
      EXPECT_EQ(ctx.err(), std::errc::operation_canceled);
      EXPECT_EQ(ctx.err().message(), "context canceled");
      EXPECT_THROW(std::rethrow_exception(ctx.cause()), std::system_error);
      (void)out.recv_for(1ms);  // it may have seen the end before it sent
      while (weft::num_goroutines() > 1) (void)out.recv_for(1ms);
    }
    auto [ctx, cancel] = weft::with_cancel(weft::background());
    cancel.detach();
    weft::CancelFunc stop_it;
    stop_it = cancel;
    static const weft::ContextKey<std::string> kUser{"user"};
    weft::Context child = weft::with_value(ctx, kUser, "ada");
    const std::string* u = child.value(kUser);
    EXPECT_EQ(*u, "ada");
    auto stop = weft::after_func(ctx, [] {});
    EXPECT_TRUE(stop());
    if (stop_it) stop_it();

    weft::Chan<int> c = weft::make_chan<int>(1);
    weft::Mutex mu;
    weft::WaitGroup wg;
    int v = 1;
    auto d = 1ms;
    c.recv(ctx);
    c.send(ctx, v);
    mu.lock(ctx);
    wg.wait(ctx);
    weft::sleep_for(ctx, d);
    weft::Recv<int> w = c.recv(ctx);
    EXPECT_EQ(w.status, weft::RecvStatus::Canceled);
    std::error_code e = c.send(ctx, 1);
    EXPECT_EQ(e, weft::Errc::canceled);
    EXPECT_EQ(weft::select(weft::recv(c), weft::recv(ctx.done()), weft::timeout(1s)), 1);
    EXPECT_TRUE(weft::settle(1, 30s));
  });
}

TEST(Api, ContextVariants) {
  weft::run([] {
    auto [a, cancel_a] = weft::with_deadline(weft::background(), weft::now() + 1h);
    auto [b, cancel_b] = weft::with_cancel_cause(a);
    auto [c, cancel_c] = weft::with_timeout_cause(b, 1s, std::runtime_error("slow"));
    auto [d, cancel_d] = weft::with_deadline_cause(b, weft::now() + 1s, std::errc::timed_out);
    weft::Context e = weft::without_cancel(d);
    cancel_b(std::make_error_code(std::errc::broken_pipe));
    EXPECT_TRUE(c.err() && d.err() && !e.err() && !a.err());
    cancel_b(std::make_exception_ptr(1));
    cancel_c();
    EXPECT_EQ(weft::to_string(weft::todo()), "context.TODO");
  });
}

}  // namespace
