// Goroutines that run in the event loop of a thread of the host's.
#include <poll.h>
#include <unistd.h>

#include <string>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

/// What a host's loop does, until `done`.
template <class F>
void loop(Runtime& rt, F done) {
  const int fd = rt.main_loop_fd();
  ASSERT_GE(fd, 0);
  const auto limit = std::chrono::steady_clock::now() + kPatience;
  while (!done()) {
    pollfd p{fd, POLLIN, 0};
    if (::poll(&p, 1, 100) > 0) rt.run_main_pending();
    ASSERT_LT(std::chrono::steady_clock::now(), limit) << "the loop is not woken";
  }
}

TEST(HostLoop, PinnedGoroutinesRunOnTheHostsThreadOnly) {
  for (int procs : {1, 2, 4}) {
    Runtime rt{Config{.procs = procs, .use_env = false}};
    ASSERT_FALSE(rt.start());
    const pid_t host = thread_now();
    Chan<int> c = make_chan<int>();
    std::atomic<int> ended{0}, elsewhere{0}, sum{0};
    for (int g = 0; g < 4; g++) {
      rt.go({.name = "gui", .main_thread = true}, [&] {
        for (int i = 0; i < 25; i++) {
          if (thread_now() != host) elsewhere++;
          sum += c.recv().value_or(0);
          if (thread_now() != host) elsewhere++;
          yield();
          if (i % 8 == 0) sleep_for(100us);
        }
        if (thread_now() != host) elsewhere++;
        ended++;
      });
      rt.go([&, c]() mutable {
        for (int i = 0; i < 25; i++) {
          if (thread_now() == host) elsewhere++;
          c.send(1);
        }
      });
    }
    loop(rt, [&] { return ended == 4; });
    EXPECT_EQ(sum.load(), 100);
    EXPECT_EQ(elsewhere.load(), 0);
    EXPECT_EQ(rt.run_main_pending(), 0);
    // Between the calls this thread is a plain one.
    EXPECT_EQ(goid(), 0u);
    rt.go([c]() mutable { c.send(9); });
    EXPECT_EQ(c.recv(), 9);
    rt.stop(5s);
  }
}

TEST(HostLoop, ItRunsBesideGoroutinesThatKeepAllPsBusy) {
  Runtime rt{Config{.procs = 1, .use_env = false}};
  ASSERT_FALSE(rt.start());
  std::atomic<bool> stop{false};
  std::atomic<int> ran{0};
  for (int i = 0; i < 3; i++)
    rt.go([&] {
      while (!stop) yield();
    });
  rt.go({.main_thread = true}, [&] {
    for (int i = 0; i < 10; i++) {
      ran++;
      yield();
    }
  });
  loop(rt, [&] { return ran == 10; });
  stop = true;
  rt.stop(5s);
}

TEST(HostLoop, StopOnTheHostsThreadDrainsAndUnwindsThem) {
  std::atomic<int> unwound{0};
  std::atomic<bool> parked{false}, drained{false};
  Runtime rt{Config{.procs = 2, .use_env = false}};
  ASSERT_FALSE(rt.start());
  rt.go({.main_thread = true}, [&] {
    Defer counted{[&] { unwound++; }};
    parked = true;
    make_chan<int>().recv();
  });
  loop(rt, [&] { return parked.load(); });
  rt.go({.main_thread = true}, [&] {
    sleep_for(2ms);
    drained = true;
  });
  const StopResult r = rt.stop(500ms);
  EXPECT_TRUE(drained.load());
  EXPECT_EQ(unwound.load(), 1);
  EXPECT_EQ(r.unwound.size(), 1u);
  EXPECT_TRUE(r.abandoned.empty());
}

TEST(HostLoop, LockingAndUnlockingChangesNothingThere) {
  Runtime rt{Config{.procs = 2, .use_env = false}};
  ASSERT_FALSE(rt.start());
  const pid_t host = thread_now();
  std::atomic<bool> done{false};
  rt.go({.main_thread = true}, [&] {
    lock_os_thread();
    yield();
    unlock_os_thread();
    unlock_os_thread();
    yield();
    EXPECT_EQ(thread_now(), host);
    done = true;
  });
  loop(rt, [&] { return done.load(); });
  rt.stop(1s);
}

TEST(HostLoop, InRunItIsAPanic) {
  in_run({1, 1}, [] {
    EXPECT_NE(panic_of([] { go({.main_thread = true}, [] {}); }).find("main_thread"), std::string::npos);
  });
}

}  // namespace
}  // namespace weft::test
