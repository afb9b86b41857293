// The API by example, "Embedding": each line as a user writes it, compiled without warnings, and
// run.
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>
#include <weft/weft.hpp>

using namespace std::chrono_literals;

namespace {

int legacy_call() { return 42; }

struct Request {
  int n;
};
std::thread callback_thread;
template <class F>
void lib_async(Request r, F done) {
  callback_thread = std::thread([=] { done(r.n + 1); });
}

TEST(Api, RuntimeLines) {
  weft::Runtime rt{{.procs = 4}};
  std::error_code e = rt.start();
  ASSERT_FALSE(e) << e.message();
  EXPECT_TRUE(rt.running());
  std::atomic<int> n{0};
  rt.go([&] { n++; });
  rt.go([&](int k) { n += k; }, 10);
  rt.go({.name = "named"}, [&] { n += 100; });
  EXPECT_TRUE(weft::settle(0, 30s));
  EXPECT_EQ(n, 111);
  EXPECT_EQ(weft::procs(), 4);
  weft::set_procs(8);
  EXPECT_EQ(weft::procs(), 8);
  EXPECT_EQ(weft::num_goroutines(), 0);
  rt.go({.name = "for ever"}, [] { weft::select(); });
  while (weft::dump_goroutines().find("[select (no cases)]") == std::string::npos) std::this_thread::yield();
  weft::StopResult r = rt.stop(10ms);
  ASSERT_EQ(r.unwound.size(), 1u);
  EXPECT_EQ(r.unwound[0].name, "for ever");
  EXPECT_EQ(r.unwound[0].reason, "select (no cases)");
  EXPECT_NE(r.unwound[0].id, 0u);
  EXPECT_TRUE(r.abandoned.empty());
}

TEST(Api, EveryMemberOfConfigInOrder) {
  weft::Config c{.procs = 2,
                 .seed = 3,
                 .stack_bytes = 64 << 10,
                 .guard = weft::Guard::Auto,
                 .hibernate = weft::Hibernate::Off,
                 .threads_max = 100,
                 .detached_max = 4,
                 .blocking_max = 10,
                 .debug = "leaks",
                 .traceback = weft::Traceback::All,
                 .use_env = false,
                 .log = [](weft::LogLevel, std::string_view) {},
                 .on_stuck = [](const weft::StuckReport&) {},
                 .on_uncaught = [](const weft::UncaughtReport&) {}};
  weft::Runtime rt{c};
  std::error_code e = rt.start();
  EXPECT_FALSE(e) << e.message();
  rt.stop(1s);
}

TEST(Api, CapabilitiesSettleAndCounts) {
  weft::run([] {
    weft::Chan<void> c = weft::make_chan<void>();
    weft::go([c] { c.recv(); });
    EXPECT_EQ(weft::num_goroutines(), 2);
    c.send();
    bool gone = weft::settle(1, 2s);
    EXPECT_TRUE(gone);
    auto caps = weft::capabilities();
    EXPECT_FALSE(caps.guard.empty());
  });
}

TEST(Api, BlockingCallsAndSafepoints) {
  weft::run([] {
    EXPECT_EQ(weft::blocking([&] { return legacy_call(); }), 42);
    EXPECT_EQ(weft::blocking(legacy_call), 42);
    EXPECT_EQ(weft::blocking([](int a, int b) { return a * b; }, 6, 7), 42);
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    ASSERT_EQ(::write(fds[1], "abc", 3), 3);
    const int fd = fds[0];
    char b[8];
    const std::size_t k = sizeof b;
    ssize_t n;
    {
      weft::SyscallRegion r;
      n = ::read(fd, b, k);
    }
    EXPECT_EQ(n, 3);
    long sum = 0;
    auto work = [&](std::size_t i) { sum += static_cast<long>(i); };
    for (std::size_t i = 0; i < 1000; i++) {
      work(i);
      weft::safepoint();
    }
    EXPECT_EQ(sum, 499500);

    std::error_code e = weft::wait_fd(fd, weft::Io::Read, weft::now() + 2ms);
    EXPECT_EQ(e, weft::Errc::deadline_exceeded);
    EXPECT_EQ(e, std::errc::timed_out);
    weft::go([&] { EXPECT_EQ(::write(fds[1], "x", 1), 1); });
    e = weft::wait_fd(fd, weft::Io::Read);
    EXPECT_FALSE(e) << e.message();
    EXPECT_FALSE(weft::wait_fd(fds[1], weft::Io::Write));
    EXPECT_TRUE(weft::settle(1, 30s));
    ::close(fds[0]);
    ::close(fds[1]);
    EXPECT_TRUE(weft::wait_fd(-1, weft::Io::Read));
  });
}

TEST(Api, Await) {
  weft::run([] {
    Request request{7};
    int n = weft::await<int>(
        [&](weft::Resume<int> done) { lib_async(request, [done](int n) { done(n); }); });
    EXPECT_EQ(n, 8);
  });
  callback_thread.join();
}

TEST(Api, PlainThreadsUseChannelsLocksAndGo) {
  weft::Runtime rt{{.procs = 2}};
  ASSERT_FALSE(rt.start());
  weft::Chan<int> c = weft::make_chan<int>();
  weft::go([c] { c.send(5); });
  EXPECT_EQ(c.recv(), 5);
  weft::Mutex mu;
  mu.lock();
  weft::go([&] { mu.unlock(); });
  mu.lock();
  mu.unlock();
  weft::WaitGroup wg;
  for (int i = 0; i < 10; i++) wg.go([] {});
  wg.wait();
  weft::sleep_for(1ms);
  weft::yield();
  EXPECT_EQ(weft::goid(), 0u);
  rt.stop(1s);
}

TEST(Api, HooksAndSharedRuntime) {
  static std::atomic<int> created{0}, exited{0};
  weft::set_hooks({.on_create = [](std::uint64_t, std::uint64_t) { created++; },
                   .on_park = [](std::uint64_t, const char*) {},
                   .on_exit = [](std::uint64_t) { exited++; }});
  std::error_code error;
  {
    std::shared_ptr<weft::Runtime> rt = weft::shared_runtime({.procs = 1}, &error);
    ASSERT_TRUE(rt) << error.message();
    rt->go([] {});
    EXPECT_TRUE(weft::settle(0, 30s));
  }
  weft::set_hooks({});
  EXPECT_GE(created, 1);
  EXPECT_GE(exited, 1);
}

}  // namespace
