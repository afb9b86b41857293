// The API by example, "Select": each line as a user writes it, compiled without warnings, and run.
#include <unistd.h>

#include <functional>
#include <optional>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <weft/weft.hpp>

using namespace std::chrono_literals;

namespace {

struct Job {
  int n = 0;
};

TEST(Api, SelectWithHandlers) {
  weft::run([] {
    weft::Chan<int> c = weft::make_chan<int>(1);
    weft::Chan<std::string> d = weft::make_chan<std::string>(1);
    std::string x = "moved only if this case is chosen";
    std::string said;
    auto once = [&] {
      return weft::select(
          weft::recv(
              c,
              [&](std::optional<int> v) { said = "received " + std::to_string(v.value_or(-1)); }),
          weft::send(d, std::move(x), [&] { said = "sent"; }),
          weft::timeout(10ms, [&] { said = "late"; }), weft::otherwise([&] { said = "default"; }));
    };
    d.send("full");
    int i = once();
    EXPECT_EQ(i, 3);
    EXPECT_EQ(said, "default");
    EXPECT_FALSE(x.empty());
    c.send(4);
    EXPECT_EQ(once(), 0);
    EXPECT_EQ(said, "received 4");
    (void)d.recv();
    EXPECT_EQ(once(), 1);
    EXPECT_EQ(said, "sent");
    EXPECT_TRUE(x.empty());
    EXPECT_EQ(weft::select(weft::recv(c, [] {}), weft::timeout(weft::now() + 1ms)), 1);
  });
}

int handled = 0, reports = 0;
void handle(const Job& j) { handled += j.n; }
void report_idle() { reports++; }

void worker(weft::Chan<Job> jobs, weft::Chan<void> quit) {
  for (std::optional<Job> job;;) {
    switch (weft::select(weft::recv(jobs, job), weft::recv(quit), weft::timeout(1ms))) {
      case 0:
        if (!job) return;
        handle(*job);
        break;
      case 1:
        return;
      case 2:
        report_idle();
        break;
    }
  }
}

TEST(Api, SelectAsAPortedLoopNeedsIt) {
  weft::run(
      [] {
        weft::Chan<Job> jobs = weft::make_chan<Job>();
        weft::Chan<void> quit = weft::make_chan<void>();
        weft::WaitGroup wg;
        wg.go(worker, jobs, quit);
        for (int i = 1; i <= 10; i++) jobs.send({i});
        while (reports == 0) weft::sleep_for(1ms);
        quit.close();
        wg.wait();
        EXPECT_EQ(handled, 55);
        wg.go(worker, jobs, weft::Chan<void>());
        jobs.close();
        wg.wait();
      },
      weft::Config{.procs = 1});
}

TEST(Api, SelectCases) {
  weft::run([] {
    weft::Chan<int> c = weft::make_chan<int>(8);
    weft::Chan<void> sig = weft::make_chan<void>(8);
    for (int i = 1; i <= 8; i++) c.send(i);
    int v = 0;
    bool ok = false;
    std::optional<int> o;
    weft::select(weft::recv(c, v));
    EXPECT_EQ(v, 1);
    weft::select(weft::recv(c, v, ok));
    EXPECT_TRUE(ok && v == 2);
    weft::select(weft::recv(c, o));
    EXPECT_EQ(o, 3);
    const bool enabled = false;
    EXPECT_EQ(weft::select(weft::recv(c, v).when(enabled), weft::otherwise()), 1);
    EXPECT_EQ(weft::select(weft::recv(c, v).when(!enabled), weft::otherwise()), 0);
    weft::select(weft::send(sig));
    weft::select(weft::send(sig, [&] { v = 0; }));
    EXPECT_EQ(v, 0);
    weft::select(weft::recv(sig, ok));
    EXPECT_TRUE(ok);
    weft::select(weft::recv(sig, [&](bool b) { ok = !b; }));
    EXPECT_FALSE(ok);
    sig.send();
    weft::select(weft::recv(sig, [&] { v = 9; }));
    EXPECT_EQ(v, 9);

    weft::Chan<std::string> d = weft::make_chan<std::string>(1);
    std::string x = "owned by the selector";
    weft::Selector s;
    s.recv(weft::Chan<int>(), v);
    s.send(d, x);
    int i = s.wait();
    EXPECT_EQ(i, 1);
    EXPECT_EQ(d.recv_or(), x);
    weft::Selector t;
    t.recv(d, x);
    EXPECT_EQ(t.try_wait(), -1);
    EXPECT_EQ(t.wait_for(1ms), -1);

    weft::Chan<int> urgent = weft::make_chan<int>(1), normal = weft::make_chan<int>(1);
    urgent.send(1);
    normal.send(2);
    weft::select(weft::prioritized, weft::recv(urgent, v), weft::recv(normal, v));
    EXPECT_EQ(v, 1);
    // An lvalue of exactly T is never taken for a handler.
    weft::Chan<std::function<void()>> calls = weft::make_chan<std::function<void()>>(1);
    calls.send([&] { v = 77; });
    std::function<void()> call = [] {};
    weft::select(weft::recv(calls, call));
    call();
    EXPECT_EQ(v, 77);
    // Durations of any unit and size.
    EXPECT_EQ(weft::select(weft::timeout(1us), weft::timeout(std::chrono::hours::max())), 0);
    EXPECT_EQ(weft::select(weft::timeout(0.5s), weft::recv(normal)), 1);
  });
}

TEST(Api, SelectOnADescriptor) {
  weft::run([] {
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    const int fd = fds[0];
    EXPECT_EQ(weft::select(weft::ready(fd, weft::Io::Read), weft::timeout(1ms)), 1);
    weft::go([&] { EXPECT_EQ(::write(fds[1], "x", 1), 1); });
    bool ran = false;
    EXPECT_EQ(
        weft::select(weft::ready(fd, weft::Io::Read, [&] { ran = true; }), weft::timeout(30s)), 0);
    EXPECT_TRUE(ran);
    EXPECT_TRUE(weft::settle(1, 30s));
    ::close(fds[0]);
    ::close(fds[1]);
  });
}

TEST(Api, EmptySelectBlocksForEver) {
  weft::Runtime rt;
  ASSERT_FALSE(rt.start());
  rt.go([] { weft::select(); });
  while (weft::dump_goroutines().find("[select (no cases)]") == std::string::npos) std::this_thread::yield();
  weft::StopResult r = rt.stop(10ms);
  EXPECT_EQ(r.unwound.size(), 1u);
}

}  // namespace
