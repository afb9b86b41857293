// Hibernated stacks: taken out of memory while their goroutine is parked, there again for whoever touches them.
#include <weft/gc_hook.hpp>

#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/internals.hpp"
#include "tests/support/freeze.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

/// Runs body with hibernation after 10 ms. The kernel may refuse it: then the test says so.
template <class F>
void hibernating(int procs, F body, Config config = {.hibernate = Hibernate::On, .hibernate_after = 10ms}) {
#ifndef __OPTIMIZE__
  GTEST_SKIP() << "the frames of code that is not optimised do not fit into a page";
#endif
  config.procs = procs;
  const int status = run([&] {
    if (capabilities().hibernate.rfind("on", 0) != 0 && config.hibernate == Hibernate::On)
      GTEST_SKIP() << capabilities().hibernate;
    body();
  }, config);
  EXPECT_EQ(status, 0);
}

bool served_for_the_kernel() { return rt::probe_faults(nullptr) == rt::Faults::All; }

/// Until at least n stacks are away.
bool until_away(std::size_t n) {
  return eventually([&] {
    sleep_for(1ms);
    return rt::hibernate_stats().away >= n;
  });
}

TEST(Hibernate, TakesWhoIsParkedForLongAndBringsItBackWhole) {
  for (int procs : {1, 2, 8})
    hibernating(procs, [] {
      constexpr int kMany = 300;
      auto c = make_chan<int>();
      auto done = make_chan<bool>();
      for (int i = 0; i < kMany; i++)
        go([=] {
          volatile int mark[100];
          for (int k = 0; k < 100; k++) mark[k] = i * 100 + k;
          const volatile int* self = mark;
          bool ok = true;
          for (int round = 0; round < 3; round++) {
            ok = ok && c.recv_or() == round && self == mark;
            for (int k = 0; k < 100; k++) ok = ok && mark[k] == i * 100 + k;
          }
          done.send(ok);
        });
      for (int round = 0; round < 3; round++) {
        EXPECT_TRUE(until_away(kMany)) << rt::hibernate_stats().away;
        for (int i = 0; i < kMany; i++) c.send(round);
      }
      for (int i = 0; i < kMany; i++) EXPECT_TRUE(*done.recv());
      const auto st = rt::hibernate_stats();  // a sender that leaves its element there touches the stack first
      EXPECT_GE(st.resumed + st.touched, 3u * kMany);
    });
}

TEST(Hibernate, EveryKindOfWaitEnds) {
  hibernating(2, [] {
    WaitGroup wg;
    Mutex mu;
    Chan<int> a = make_chan<int>(), b = make_chan<int>();
    mu.lock();
    for (int i = 0; i < 20; i++) {
      wg.go([&] { std::lock_guard l(mu); });
      wg.go([&] { sleep_for(1s); });
      wg.go([&] {
        int x = 0;
        select(recv(a, x), recv(b, x), timeout(1h));
        EXPECT_EQ(x, 7);
      });
      wg.go([&] { EXPECT_EQ(a.recv_for(1s).status, RecvStatus::Empty); });
    }
    EXPECT_TRUE(until_away(60));
    mu.unlock();
    for (int i = 0; i < 20; i++) b.send(7);
    wg.wait();
  });
}

/// A goroutine that hands out the address of a local and waits until it is told to look at it.
struct Parked {
  Chan<std::uint64_t*> address = make_chan<std::uint64_t*>();
  Chan<void> look = make_chan<void>();
  Chan<std::uint64_t> seen = make_chan<std::uint64_t>();
  std::uint64_t* words = nullptr;

  Parked() {
    go([address = address, look = look, seen = seen] {
      volatile std::uint64_t words[8] = {1, 2, 3, 4, 5, 6, 7, 8};
      address.send(const_cast<std::uint64_t*>(words));
      (void)look.recv();
      std::uint64_t sum = 0;
      for (const volatile std::uint64_t& w : words) sum += w;
      seen.send(sum);
    });
    words = *address.recv();
  }
  std::uint64_t sum() {
    look.send();
    return *seen.recv();
  }
};

TEST(Hibernate, ATouchByAnotherThreadFindsTheBytesAndIsKept) {
  hibernating(2, [] {
    Parked g;
    ASSERT_TRUE(until_away(1));
    const auto before = rt::hibernate_stats();
    EXPECT_EQ(g.words[3], 4u);
    g.words[3] = 40;
    EXPECT_EQ(rt::hibernate_stats().touched, before.touched + 1);
    // Left alone until its goroutine has run.
    sleep_for(100ms);
    EXPECT_EQ(rt::hibernate_stats().away, 0u);
    EXPECT_EQ(g.sum(), 36u + 36u);
  });
}

/// What a look into the frozen world says of hibernated stacks: where their bytes are, and what they were then.
struct Blocks {
  static constexpr std::size_t kMost = 64, kBytes = 1024;
  struct {
    const void* lo;
    std::size_t bytes;
    char copy[kBytes];
  } of[kMost];
  std::size_t n = 0;

  static void take(const gc::StackView& v, void* arg) {
    auto& all = *static_cast<Blocks*>(arg);
    if (v.where != gc::Where::Block || all.n == kMost) return;
    auto& at = all.of[all.n++];
    at.lo = v.lo;
    const auto bytes = static_cast<const char*>(v.hi) - static_cast<const char*>(v.lo);
    at.bytes = std::min(static_cast<std::size_t>(bytes), kBytes);
    std::memcpy(at.copy, at.lo, at.bytes);
  }
  std::size_t changed() const {
    std::size_t c = 0;
    for (std::size_t i = 0; i < n; i++) c += std::memcmp(of[i].copy, of[i].lo, of[i].bytes) != 0;
    return c;
  }
};

TEST(Hibernate, AFrozenLookKeepsTheBytesOfAStackThatIsTouchedMeanwhile) {
  hibernating(2, [] {
    constexpr std::size_t kMany = 32;
    auto address = make_chan<volatile std::uint64_t*>(kMany + 1);
    auto end = make_chan<void>();
    for (std::size_t i = 0; i <= kMany; i++)
      go([=] {
        // Frames of all sizes: of some, the live bytes fill their block.
        auto* room = static_cast<volatile std::uint64_t*>(__builtin_alloca(64 + i * 16));
        room[0] = i;
        address.send(room);
        (void)end.recv();
        EXPECT_EQ(room[0], i);
      });
    volatile std::uint64_t* words[kMany + 1];
    for (auto& w : words) w = *address.recv();
    std::atomic<int> step{0};
    std::thread stranger([&] {
      while (step.load() == 0) std::this_thread::yield();
      for (auto* w : words) (void)*w;  // the handler is through with one when the next is served
      step.store(2);
    });
    ASSERT_TRUE(until_away(kMany + 1));
    auto blocks = std::make_unique<Blocks>();
    ASSERT_TRUE(freeze_in_time());
    gc::each_stack(Blocks::take, blocks.get());
    const std::size_t n = blocks->n;
    step.store(1);
    while (step.load() != 2) asm volatile("pause");
    const std::size_t changed = blocks->changed();
    gc::thaw_world();
    stranger.join();
    EXPECT_GE(n, kMany);
    EXPECT_EQ(changed, 0u) << "of " << n;
    end.close();
  });
}

TEST(Hibernate, ATouchByAThreadThatBlocksAllSignals) {
  hibernating(2, [] {
    Parked g;
    ASSERT_TRUE(until_away(1));
    std::thread([&] {
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, nullptr);
      g.words[0] = 101;
    }).join();
    EXPECT_EQ(g.sum(), 36u + 100u);
  });
}

TEST(Hibernate, TheKernelsOwnAccessesAreServed) {
  hibernating(2, [] {
    if (!served_for_the_kernel()) GTEST_SKIP() << "userfaultfd serves user accesses only";
    {  // recv() of another thread
      Parked g;
      ASSERT_TRUE(until_away(1));
      int fds[2];
      ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
      std::thread([&] {
        const std::uint64_t v = 1001;
        EXPECT_EQ(::send(fds[1], &v, sizeof v, 0), static_cast<ssize_t>(sizeof v));
        EXPECT_EQ(::recv(fds[0], &g.words[0], sizeof v, 0), static_cast<ssize_t>(sizeof v));
      }).join();
      EXPECT_EQ(g.sum(), 36u + 1000u);
      ::close(fds[0]);
      ::close(fds[1]);
    }
    {  // a futex word
      Parked g;
      ASSERT_TRUE(until_away(1));
      timespec ts{0, 1'000'000};
      errno = 0;
      const long r = ::syscall(SYS_futex, &g.words[1], 0 /* FUTEX_WAIT */, 99, &ts, nullptr, 0);
      EXPECT_TRUE(r == -1 && errno == EAGAIN) << errno;  // its value was read, and is not 99
      EXPECT_EQ(g.sum(), 36u);
    }
    {  // process_vm_readv
      Parked g;
      ASSERT_TRUE(until_away(1));
      std::uint64_t copy[8] = {};
      iovec to{copy, sizeof copy}, from{g.words, sizeof copy};
      EXPECT_EQ(::process_vm_readv(::getpid(), &to, 1, &from, 1, 0), static_cast<ssize_t>(sizeof copy));
      EXPECT_EQ(copy[7], 8u);
      EXPECT_EQ(g.sum(), 36u);
    }
  });
}

/// What gdb, attached to this process, says of `command`; empty if there is no gdb.
std::string ask_gdb(const std::string& command) {
  const std::string line = "gdb -nx -q -batch -ex 'set debuginfod enabled off' -ex 'set auto-solib-add off' -p " +
                           std::to_string(::getpid()) + " -ex '" + command + "' -ex detach 2>&1";
  std::string all;
  blocking([&] {
    if (std::FILE* f = ::popen(line.c_str(), "r")) {
      char text[512];
      while (std::fgets(text, sizeof text, f)) all += text;
      ::pclose(f);
    }
  });
  return all.find("not found") != std::string::npos ? "" : all;
}

TEST(Hibernate, ADebuggerIsRefusedTheWordsAndTheyAreWhole) {
  hibernating(2, [] {
    Parked g;
    ASSERT_TRUE(until_away(1));
    char command[64];
    std::snprintf(command, sizeof command, "x/1xg %p", static_cast<void*>(g.words));
    const std::string said = ask_gdb(command);
    if (said.empty()) GTEST_SKIP() << "gdb is not installed";
    if (said.find("ptrace: Operation not permitted") != std::string::npos) GTEST_SKIP() << said;
    // The thread that would bring the page stands still while the debugger looks.
    EXPECT_NE(said.find("Cannot access memory"), std::string::npos) << said;
    EXPECT_EQ(g.sum(), 36u);
    // A stack in place is read.
    volatile std::uint64_t here = 1;
    std::snprintf(command, sizeof command, "x/1xg %p", const_cast<void*>(static_cast<volatile void*>(&here)));
    const std::string again = ask_gdb(command);
    EXPECT_NE(again.find("0x0000000000000001"), std::string::npos) << again;
  });
}

TEST(Hibernate, APinnedPageStays) {
  hibernating(2, [] {
    // io_uring's registered buffers are pinned: what the kernel writes there later must not be lost.
    std::uint8_t params[120] = {};
    const int ring = static_cast<int>(::syscall(425 /* io_uring_setup */, 4, params));
    if (ring < 0) GTEST_SKIP() << "io_uring is refused: " << std::strerror(errno);
    Parked pinned;
    iovec buffer{pinned.words, 64};
    if (::syscall(427 /* io_uring_register */, ring, 0 /* IORING_REGISTER_BUFFERS */, &buffer, 1) != 0) {
      ::close(ring);
      EXPECT_EQ(pinned.sum(), 36u);
      GTEST_SKIP() << "buffers cannot be registered: " << std::strerror(errno);
    }
    Parked other;
    ASSERT_TRUE(until_away(1));
    sleep_for(100ms);
    EXPECT_EQ(rt::hibernate_stats().away, 1u);
    ::close(ring);
    EXPECT_EQ(pinned.sum(), 36u);
    EXPECT_EQ(other.sum(), 36u);
  });
}

TEST(Hibernate, AForkedChildFindsParkedStacks) {
  hibernating(2, [] {
    Parked g;
    ASSERT_TRUE(until_away(1));
    const pid_t child = ::fork();
    if (child == 0) ::_exit(g.words[5] == 6 ? 7 : 1);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
    EXPECT_EQ(g.sum(), 36u);
  });
}

TEST(Hibernate, DumpsReadStacksWhereTheyAre) {
  hibernating(2, [] {
    auto gate = make_chan<void>();
    for (int i = 0; i < 50; i++) go({.name = "asleep"}, [=] { (void)gate.recv(); });
    ASSERT_TRUE(until_away(50));
    const std::string dump = dump_goroutines();
    std::size_t named = 0, framed = 0;
    for (std::size_t at = 0; (at = dump.find("\"asleep\" [chan receive", at)) != std::string::npos; at++) {
      named++;
      if (dump.substr(at, dump.find("\n\n", at) - at).find("hibernate_test.cpp") != std::string::npos) framed++;
    }
    EXPECT_EQ(named, 50u);
    if (rt::symbols_available()) {
      EXPECT_EQ(framed, 50u) << dump;
    }
    EXPECT_EQ(rt::hibernate_stats().away, 50u);
    EXPECT_EQ(rt::hibernate_stats().touched, 0u);
    gate.close();
  });
}

TEST(Hibernate, SpawnSaysOtherwise) {
  hibernating(1, [] {
    auto gate = make_chan<void>();
    for (int i = 0; i < 10; i++) go({.hibernate = Hibernate::Off}, [=] { (void)gate.recv(); });
    go([=] { (void)gate.recv(); });
    ASSERT_TRUE(until_away(1));
    sleep_for(100ms);
    EXPECT_EQ(rt::hibernate_stats().away, 1u);
    gate.close();
  });
  if (rt::probe_faults(nullptr) == rt::Faults::None) return;
  hibernating(1, [] {
    auto gate = make_chan<void>();
    for (int i = 0; i < 10; i++) go([=] { (void)gate.recv(); });
    go({.hibernate = Hibernate::On}, [=] { (void)gate.recv(); });
    EXPECT_TRUE(until_away(1));
    sleep_for(100ms);
    EXPECT_EQ(rt::hibernate_stats().away, 1u);
    gate.close();
  }, {.hibernate = Hibernate::Off, .hibernate_after = 10ms});
}

TEST(Hibernate, AfterIsOneSecondAndATargetHurries) {
  hibernating(1, [] {
    auto gate = make_chan<void>();
    const Time before = now();
    for (int i = 0; i < 100; i++) go([=] { (void)gate.recv(); });
    sleep_for(100ms);
    const std::size_t away = rt::hibernate_stats().away;
    if (now() - before < 1s) {  // else the machine was too slow
      EXPECT_EQ(away, 0u);
    }
    gate.close();
  }, {.hibernate = Hibernate::On});
  hibernating(1, [] {
    auto gate = make_chan<void>();
    for (int i = 0; i < 100; i++) go([=] { (void)gate.recv(); });
    EXPECT_TRUE(until_away(100));
    gate.close();
  }, {.hibernate = Hibernate::On, .hibernate_after = 1h, .hibernate_target = 1});
}

TEST(Hibernate, BeyondTheTargetFreshStacksAreRationedButNobodyWaitsForEver) {
  hibernating(2, [] {
    EXPECT_TRUE(eventually([] { return rt::memory_short.load(); }));
    // None of them may be taken, and each waits for the last: only the rounds let them start.
    constexpr int kMany = 50'000, kPerRound = 1000;
    auto gate = make_chan<void>();
    WaitGroup done;
    done.add(kMany);
    std::atomic<int> here{0};
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < kMany; i++)
      go(Spawn{.hibernate = Hibernate::Off}, [&, gate] {
        if (++here == kMany) gate.close();
        (void)gate.recv();
        done.done();
      });
    done.wait();
    EXPECT_GE(std::chrono::steady_clock::now() - began, 5ms * (kMany / kPerRound - 5));
  }, {.hibernate = Hibernate::On, .hibernate_after = 1h, .hibernate_target = 1});
  EXPECT_FALSE(rt::memory_short.load());
}

TEST(Hibernate, DeepRecursionOnAWatchedStackWorks) {
  hibernating(2, [] {
    auto gate = make_chan<void>();
    auto sums = make_chan<int>();
    struct Deep {
      static int down(int n) {
        volatile char frame[1000];
        for (char& x : const_cast<char(&)[1000]>(frame)) x = static_cast<char>(n);
        return n == 0 ? 0 : down(n - 1) + (frame[999] == static_cast<char>(n));
      }
    };
    for (int i = 0; i < 20; i++)
      go([=] {
        (void)gate.recv();
        sums.send(Deep::down(150));  // fresh pages, each a fault
      });
    ASSERT_TRUE(until_away(20));
    gate.close();
    for (int i = 0; i < 20; i++) EXPECT_EQ(*sums.recv(), 150);
  });
}

/// Below what was live when it parked, in the same page.
[[gnu::noinline]] int fills_and_checks(int seed) {
  volatile unsigned char deep[1400];
  for (int i = 0; i < 1400; i++) deep[i] = static_cast<unsigned char>(seed + i);
  int bad = 0;
  for (int round = 0; round < 20; round++)
    for (int i = 0; i < 1400; i++) bad += deep[i] != static_cast<unsigned char>(seed + i);
  return bad;
}

TEST(Hibernate, WhoRunsAgainOnItsWayOutKeepsItsWholePage) {
  // Many are due at a time, so that some have been woken between the look and the taking.
  hibernating(2, [] {
    WaitGroup wg;
    std::atomic<int> bad{0};
    for (int i = 0; i < 1500; i++)
      wg.go([&, i] {
        for (int round = 0; round < 25; round++) {
          sleep_for(std::chrono::microseconds(1000 + (i * 37 + round * 101) % 5000));
          bad += fills_and_checks(i + round);
        }
      });
    wg.wait();
    EXPECT_EQ(bad.load(), 0);
    EXPECT_GT(rt::hibernate_stats().taken, 0u);
  }, {.hibernate = Hibernate::On, .hibernate_after = 1ms});
}

/// Threads count up words on parked stacks while these are taken out, brought back, and run.
void stress(std::uint64_t cycles) {
  hibernating(2, [&] {
    constexpr int kGoroutines = 8;
    struct Shared {
      std::atomic<std::uint64_t>* words[kGoroutines];
      Chan<void> wake[kGoroutines];
    } shared;
    auto ready = make_chan<int>();
    auto counted = make_chan<std::uint64_t>();
    std::atomic<bool> stop{false};
    for (int i = 0; i < kGoroutines; i++) {
      shared.wake[i] = make_chan<void>();
      go([&, i] {
        std::atomic<std::uint64_t> words[16] = {};
        shared.words[i] = words;
        ready.send(i);
        while (shared.wake[i].recv()) words[0].fetch_add(1, std::memory_order_relaxed);
        std::uint64_t sum = 0;
        for (auto& w : words) sum += w.load();
        counted.send(sum);
      });
    }
    for (int i = 0; i < kGoroutines; i++) (void)ready.recv();
    std::uint64_t written[2] = {}, woken = 0;
    std::vector<std::thread> writers;
    for (int t = 0; t < 2; t++)
      writers.emplace_back([&, t] {
        std::uint64_t x = static_cast<std::uint64_t>(t) + 1;
        while (!stop.load(std::memory_order_relaxed)) {
          x = x * 6364136223846793005u + 1442695040888963407u;
          shared.words[(x >> 33) % kGoroutines][(x >> 40) % 16].fetch_add(1, std::memory_order_relaxed);
          written[t]++;
          if (x >> 60 == 0) std::this_thread::sleep_for(std::chrono::microseconds(x >> 50 & 0xff));
        }
      });
    while (rt::hibernate_stats().taken < cycles) {
      shared.wake[woken % kGoroutines].send();
      woken++;
      if (woken % 8 == 0) sleep_for(std::chrono::microseconds(1500));
    }
    stop = true;
    for (std::thread& t : writers) t.join();
    for (auto& w : shared.wake) w.close();
    std::uint64_t sum = 0;
    for (int i = 0; i < kGoroutines; i++) sum += *counted.recv();
    EXPECT_EQ(sum, written[0] + written[1] + woken);
  }, {.hibernate = Hibernate::On, .hibernate_after = 1ms});
}

TEST(Hibernate, NoUpdateIsLostWhileStacksComeAndGo) { stress(300); }
TEST(Hibernate, DISABLED_NoUpdateIsLostIn200000Cycles) { stress(200'000); }

}  // namespace
}  // namespace weft::test
