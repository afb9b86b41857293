// The dump of all goroutines: on SIGQUIT, on request, and what each line of it says.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {

[[gnu::noinline]] void waits_here(const Chan<int>& c) {
  (void)c.recv();
  asm volatile("");
}

[[gnu::noinline]] void blocks_here(const std::function<void()>& f) {
  blocking([&] { f(); });
  asm volatile("");
}

[[gnu::noinline]] void starts_the_waiter(const Chan<int>& c) {
  go({.name = "waiter", .labels = {{"conn", "7"}}}, [c] { waits_here(c); });
  asm volatile("");
}

namespace {

using namespace std::chrono_literals;

// A world with one goroutine in each state, built by goroutine 1; `then` runs when all of them are
// there.
void one_of_each(const std::function<void()>& then) {
  int fds[2];
  if (::pipe2(fds, 0) != 0) std::_Exit(9);
  Chan<int> c = make_chan<int>();
  Mutex mu;
  mu.lock();
  WaitGroup wg;
  wg.add(1);
  starts_the_waiter(c);
  go_parked("chan send", [] { make_chan<int>().send(1); });
  go_parked("chan receive (nil chan)", [] { (void)Chan<int>().recv(); });
  go_parked("chan send (nil chan)", [] { Chan<int>().send(1); });
  go_parked("select", [=] { select(recv(c), recv(make_chan<int>())); });
  go_parked("select (no cases)", [] { select(); });
  go_parked("sleep", [] { sleep_for(1h); });
  go_parked("sync.Mutex.Lock", [&] { mu.lock(); });
  go_parked("sync.WaitGroup.Wait", [&] { wg.wait(); });
  go_parked("IO wait", [&] { (void)wait_fd(fds[0], Io::Read); });
  std::atomic<bool> in_call{false};
  go([&] {
    blocks_here([&] {
      in_call = true;
      // Not read(): a signal's handler would not run in it under TSan.
      pollfd p{fds[0], POLLIN, 0};
      while (::poll(&p, 1, -1) < 0 && errno == EINTR) {
      }
    });
  });
  eventually([&] { return in_call.load(); });
  eventually([&] { return dump_goroutines().find("waits_here") != std::string::npos; });
  then();
}

void expect_all_states(const Child& c) {
  for (const char* state :
       {"[chan receive labels:{\"conn\": \"7\"}]:", "[chan send]:", "[chan receive (nil chan)]:", "[chan send (nil chan)]:",
        "[select]:", "[select (no cases)]:", "[sleep]:", "[sync.Mutex.Lock]:",
        "[sync.WaitGroup.Wait]:", "[IO wait]:", "[syscall]:"})
    EXPECT_TRUE(c.says(state)) << state << c.report();
  EXPECT_TRUE(c.says("goroutine 1 [")) << c.report();
  EXPECT_TRUE(c.says("created by ")) << c.report();
  EXPECT_TRUE(c.says(" in goroutine 1")) << c.report();
  const size_t at = c.err.find("waits_here");
  ASSERT_NE(at, std::string::npos) << c.report();
  EXPECT_NE(c.err.find("starts_the_waiter", at), std::string::npos) << c.report();
  EXPECT_TRUE(c.says("waiter")) << c.report();
  EXPECT_NE(c.goroutine("[syscall]").find("blocks_here"), std::string::npos) << c.report();
}

TEST(Dump, OnSigquitListsAllGoroutinesAndExitsWith2) {  // 107, 109
  for (const char* procs : {"1", "2", "8"}) {
    const Child c = child(
        [] {
          run([] {
            one_of_each([] {
              ::kill(::getpid(), SIGQUIT);
              for (;;) sleep_for(1h);
            });
          });
          std::puts("went on");
        },
        {.env = {std::string("WEFT_PROCS=") + procs}});
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 2) << c.report();
    EXPECT_EQ(c.err.rfind("SIGQUIT: quit", 0), 0u) << c.report();
    EXPECT_EQ(c.out, "") << c.report();
    expect_all_states(c);
  }
}

TEST(Dump, OnSigquitWhileAGoroutineComputesWithoutSafepoints) {  // 107
  const Child c = child([] {
    run([] {
      go_parked("chan receive", [] { (void)make_chan<int>().recv(); });
      ::kill(::getpid(), SIGQUIT);
      std::atomic<uint64_t> n{0};
      for (;;) {
        n.fetch_add(1, std::memory_order_relaxed);
        if (kTsan) ::poll(nullptr, 0, 0);  // TSan runs a signal's handler in such calls only
      }
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("SIGQUIT: quit", 0), 0u) << c.report();
  EXPECT_TRUE(c.says("[chan receive]:")) << c.report();
  EXPECT_TRUE(c.says("goroutine 1 [running")) << c.report();
}

// Waits on the thread that run() was not called on; `f` gets that thread.
void on_another_thread(const std::function<void(pthread_t)>& f) {
  const pid_t caller = ::getpid();
  std::atomic<bool> found{false};
  // Each holds the thread that it is on: with two of them one is elsewhere.
  for (int i = 0; i < 2; i++)
    go([&, caller] {
      if (thread_now() != caller && !found.exchange(true)) f(::pthread_self());
      while (!found) {
      }
    });
  for (;;) sleep_for(1h);
}

void expect_quit(const Child& c) {
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.err.rfind("SIGQUIT: quit", 0), 0u) << c.report();
  EXPECT_FALSE(c.says("does not answer")) << c.report();
  EXPECT_TRUE(c.says("goroutine 1 [")) << c.report();
  EXPECT_EQ(c.out, "") << c.report();
}

TEST(Dump, OnSigquitRaisedByAGoroutineOnAnyThread) {  // 107
  expect_quit(child([] {
    run([] {
      ::raise(SIGQUIT);
      for (;;) sleep_for(1h);
    });
  }));
  expect_quit(child([] {
    run([] { on_another_thread([](pthread_t) { ::raise(SIGQUIT); }); }, Machine{3, 1}.config());
  }));
}

TEST(Dump, OnSigquitSentToAnIdleThreadOfTheRuntime) {  // 107
  expect_quit(child([] {
    run(
        [] {
          on_another_thread([](pthread_t thread) {
            go([thread] {
              for (int i = 0; i < 100; i++) yield();
              ::pthread_kill(thread, SIGQUIT);
            });
          });
        },
        Machine{3, 1}.config());
  }));
}

// No thread of the process but those of run() has it unblocked.
TEST(Dump, OnSigquitThatOnlyTheThreadsOfRunCanTake) {  // 107
  expect_quit(child([] {
    sigset_t quit;
    sigemptyset(&quit);
    sigaddset(&quit, SIGQUIT);
    static std::atomic<bool> blocked{false};
    std::thread runs([] {
      run([] {
        go([] {
          for (;;) safepoint();
        });
        // A thread that is in the kernel, and one that computes.
        blocking([] {
          while (!blocked) std::this_thread::yield();
          ::kill(::getpid(), SIGQUIT);
          for (;;) ::pause();
        });
      });
    });
    ::pthread_sigmask(SIG_BLOCK, &quit, nullptr);
    blocked = true;
    runs.join();
  }));
}

TEST(Dump, SigquitBlockedByTheCallerOfRunIsLeftToTheHost) {  // 107
  const Child c = child([] {
    sigset_t quit;
    sigemptyset(&quit);
    sigaddset(&quit, SIGQUIT);
    ::pthread_sigmask(SIG_BLOCK, &quit, nullptr);
    return run([&] {
      WaitGroup wg;
      for (int i = 0; i < 10; i++) wg.go([] { yield(); });
      ::kill(::getpid(), SIGQUIT);
      wg.wait();
      const timespec patience{30, 0};
      return blocking([&] { return ::sigtimedwait(&quit, nullptr, &patience); }) == SIGQUIT ? 7 : 1;
    });
  });
  EXPECT_EQ(c.status, 7) << c.report();
  EXPECT_EQ(c.err, "") << c.report();
}

TEST(Dump, UnderRuntimeOnlyWhenAskedForAndItGoesOn) {  // 107
  const Child c = child([] {
    Runtime rt;
    if (rt.start()) std::_Exit(9);
    if (!dump_on_signal(SIGUSR1)) std::_Exit(8);
    Chan<int> c = make_chan<int>(), out = make_chan<int>(1);
    rt.go({.name = "patient"}, [=] { out.send(c.recv_or()); });
    eventually([] { return dump_goroutines().find("[chan receive]") != std::string::npos; });
    // Into a pipe, to see when a dump is whole: it ends with an empty line.
    int fds[2];
    if (::pipe(fds) != 0) std::_Exit(9);
    const int err = ::dup(2);
    ::dup2(fds[1], 2);
    std::string said;
    for (int i = 0; i < 2; i++) {
      ::kill(::getpid(), SIGUSR1);
      const size_t from = said.size();
      while (said.find("patient", from) == std::string::npos || !said.ends_with("\n\n")) {
        // Not read() alone: a signal's handler would not run in it under TSan.
        pollfd p{fds[0], POLLIN, 0};
        if (::poll(&p, 1, -1) != 1) continue;
        char text[1000];
        said.append(text, static_cast<size_t>(std::max<ssize_t>(::read(fds[0], text, sizeof text), 0)));
      }
    }
    ::dup2(err, 2);
    std::fputs(said.c_str(), stderr);
    c.send(6);
    const int r = out.recv_or();
    rt.stop(1s);
    return r;
  });
  EXPECT_EQ(c.status, 6) << c.report();
  EXPECT_EQ(c.count("[chan receive]"), 2) << c.report();
  EXPECT_EQ(c.count("patient"), 2) << c.report();
}

TEST(Dump, UnderRuntimeSigquitKeepsItsDefault) {  // 107
  const Child c = child([] {
    Runtime rt;
    if (rt.start()) std::_Exit(9);
    rt.go([] { select(); });
    ::kill(::getpid(), SIGQUIT);
    std::this_thread::sleep_for(5s);
    return 0;
  });
  EXPECT_EQ(c.signal, SIGQUIT) << c.report();
}

// Go: SignalExitStatus. Signals that nobody asked for keep their meaning.
TEST(Dump, DeathByASignalIsSeenAsOne) {  // 107
  for (int signal : {SIGTERM, SIGHUP, SIGKILL, SIGUSR1}) {
    const Child c = child([signal] {
      run([signal] {
        go([signal] { ::kill(::getpid(), signal); });
        sleep_for(1h);
      });
    });
    if (!c.ran) continue;
    EXPECT_EQ(c.signal, signal) << c.report();
    EXPECT_EQ(c.err, "") << c.report();
  }
}

// Go: CrashDumpsAllThreads.
TEST(Dump, OnSigquitAtLevelCrashAbortsAfterwards) {  // 107
  const Child c = child(
      [] {
        run([] {
          one_of_each([] {
            ::kill(::getpid(), SIGQUIT);
            for (;;) sleep_for(1h);
          });
        });
      },
      {.env = {"WEFT_TRACEBACK=crash"}});
  EXPECT_EQ(c.signal, SIGABRT) << c.report();
  EXPECT_EQ(c.err.rfind("SIGQUIT: quit", 0), 0u) << c.report();
  EXPECT_TRUE(c.says("[chan receive")) << c.report();
}

TEST(Dump, AsTextHasGosForm) {  // 109
  const Child c = child([] {
    run([] {
      one_of_each([] {
        const std::string d = dump_goroutines();
        std::fputs(d.c_str(), stderr);
        std::_Exit(0);
      });
    });
  });
  EXPECT_EQ(c.status, 0) << c.report();
  expect_all_states(c);
  EXPECT_EQ(c.err.rfind("goroutine 1 [running]:\n", 0), 0u)
      << "the caller comes first" << c.report();
  // Each block: a header, frames as a function line and an indented place, "created by" last; an
  // empty line between.
  int blocks = 0;
  for (size_t at = 0; at < c.err.size();) {
    const size_t end = std::min(c.err.find("\n\n", at), c.err.size());
    const std::string block = c.err.substr(at, end - at);
    EXPECT_EQ(block.rfind("goroutine ", 0), 0u) << block;
    const std::string header = block.substr(0, block.find('\n'));
    EXPECT_NE(header.find("["), std::string::npos) << header;
    EXPECT_EQ(header.back(), ':') << header;
    if (header.rfind("goroutine 1 ", 0) != 0) {
      EXPECT_NE(block.find("\ncreated by "), std::string::npos) << block;
    }
    blocks++;
    at = end + 2;
  }
  EXPECT_EQ(blocks, 12) << c.report();
}

TEST(Dump, RunnableOnesAreCalledRunnable) {  // 109
  const Child c = child([] {
    run(
        [] {
          for (int i = 0; i < 3; i++)
            go([] {
              for (;;) yield();
            });
          for (int i = 0; i < 10; i++) yield();
          std::fputs(dump_goroutines().c_str(), stderr);
        },
        Machine{1, 1}.config());
  });
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_EQ(c.count("[runnable"), 3) << c.report();
}

TEST(Leaks, ParkedGoroutinesAreReportedAtTheEnd) {
  auto body = [] {
    return run([] {
      Chan<int> c = make_chan<int>();
      starts_the_waiter(c);
      go_parked("chan send (nil chan)", [] { Chan<int>().send(1); });
      eventually([] { return dump_goroutines().find("waits_here") != std::string::npos; });
      return 3;
    });
  };
  const Child asked = child(body, {.env = {"WEFT_DEBUG=leaks"}});
  const Child not_asked = child(body);
  EXPECT_EQ(asked.status, 3) << asked.report();
  EXPECT_TRUE(asked.says("chan receive")) << asked.report();
  EXPECT_TRUE(asked.says("chan send (nil chan)")) << asked.report();
  EXPECT_TRUE(asked.says("starts_the_waiter")) << asked.report();
  EXPECT_TRUE(asked.says("waiter")) << asked.report();
  EXPECT_EQ(not_asked.status, 3) << not_asked.report();
  EXPECT_EQ(not_asked.err, "") << not_asked.report();
}

TEST(Leaks, NothingIsReportedWhenNothingIsLeft) {
  const Child c = child(
      [] {
        return run([] {
          WaitGroup wg;
          for (int i = 0; i < 100; i++) wg.go([] { yield(); });
          wg.wait();
          settle(1, 30s);
          return 0;
        });
      },
      {.env = {"WEFT_DEBUG=leaks"}});
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_EQ(c.err, "") << c.report();
}

}  // namespace
}  // namespace weft::test
