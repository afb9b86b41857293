// How a program ends when main returns while others are parked, running, computing or in the
// kernel; and bad WEFT_* values, which end it before it begins.
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

struct SaysGoodbye {
  ~SaysGoodbye() { std::puts("static destructor"); }
};

TEST(End, RunReturnsMainsResultAndLeavesOthersWhereTheyAre) {
  for (const char* procs : {"1", "2", "8"}) {
    const Child c = child(
        [] {
          const int r = run([] {
            go([] {
              Defer d{[] { std::puts("deferred"); }};
              (void)make_chan<int>().recv();
            });
            go([] {
              Defer d{[] { std::puts("deferred"); }};
              for (;;) yield();
            });
            go([] {
              Defer d{[] { std::puts("deferred"); }};
              sleep_for(1h);
            });
            for (int i = 0; i < 10; i++) yield();
            return 17;
          });
          std::puts("after run");
          return r;
        },
        {.env = {std::string("WEFT_PROCS=") + procs}});
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 17) << c.report();
    EXPECT_EQ(c.out, "after run\n") << c.report();
    EXPECT_EQ(c.err, "") << c.report();
  }
}

TEST(End, HungUserCodeLeavesWithTheResultAfterAHundredMilliseconds) {
  const Child c = child([] {
    std::printf("buffered text without a newline");
    const int r = run(
        [] {
          std::atomic<bool> begun{false};
          go([&] {
            begun = true;
            std::atomic<uint64_t> n{0};
            for (;;) n.fetch_add(1, std::memory_order_relaxed);
          });
          while (!begun) yield();
          return 23;
        },
        Machine{2, 1}.config());
    std::puts("after run");
    return r;
  });
  EXPECT_EQ(c.status, 23) << c.report();
  EXPECT_EQ(c.out, "buffered text without a newline")
      << "stdio was not flushed, or run returned" << c.report();
  EXPECT_EQ(c.signal, 0) << c.report();
  EXPECT_GE(c.took, 100ms);
}

TEST(End, OneInTheKernelDoesNotHoldItUp) {
  const Child c = child([] {
    const int r = run(
        [] {
          int fds[2];
          if (::pipe(fds) != 0) std::_Exit(9);
          std::atomic<int> in_call{0};
          go([&, fd = fds[0]] {
            blocking([&] {
              in_call++;
              char byte;
              return ::read(fd, &byte, 1);
            });
          });
          go([&, fd = fds[0]] {
            in_call++;
            SyscallRegion s;
            char byte;
            (void)!::read(fd, &byte, 1);
          });
          while (in_call < 2) yield();
          return 19;
        },
        Machine{2, 1}.config());
    std::puts("after run");
    return r;
  });
  EXPECT_EQ(c.status, 19) << c.report();
  EXPECT_EQ(c.err, "") << c.report();
}

TEST(End, ExitFromAGoroutineRunsStaticDestructorsAndDoesNotCrash) {
  for (int round = 0; round < 5; round++) {
    const Child c = child([] {
      static SaysGoodbye goodbye;
      run([] {
        for (int i = 0; i < 10; i++)
          go([] {
            for (;;) yield();
          });
        go([] {
          for (int i = 0; i < 20; i++) yield();
          std::exit(29);
        });
        (void)make_chan<int>().recv();
      });
    });
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 29) << c.report();
    EXPECT_EQ(c.out, "static destructor\n") << c.report();
  }
}

TEST(End, ManyRunningGoroutinesNeverCrashTheExit) {
  // Main returns while eight goroutines allocate, print and switch; the process then runs its
  // static destructors.
  for (int round = 0; round < 10; round++) {
    const Child c = child([] {
      static SaysGoodbye goodbye;
      const int r = run(
          [] {
            for (int i = 0; i < 8; i++)
              go([] {
                for (;;) {
                  std::string s(1000, 'x');
                  Chan<std::string> c = make_chan<std::string>(1);
                  c.send(std::move(s));
                  (void)c.recv();
                  yield();
                }
              });
            for (int i = 0; i < 100; i++) yield();
            return 31;
          },
          Machine{4, 1}.config());
      std::exit(r);
    });
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 31) << c.report();
    EXPECT_EQ(c.out, "static destructor\n") << c.report();
  }
}

TEST(End, StopAbandonsWhatSwallowsTheUnwinding) {
  const Child c = child([] {
    Runtime rt{Machine{2, 1}.config()};
    if (rt.start()) std::_Exit(9);
    rt.go({.name = "swallower"}, [] {
      for (;;) {
        try {
          sleep_for(1h);
        } catch (...) {
        }
      }
    });
    eventually([] { return dump_goroutines().find("[sleep]") != std::string::npos; });
    const StopResult r = rt.stop(0s);
    if (r.abandoned.size() != 1 || r.abandoned[0].name != "swallower") return 1;
    if (!r.unwound.empty()) return 2;
    // And the machine starts again beside what was abandoned.
    if (rt.start()) return 3;
    std::atomic<int> n{0};
    rt.go([&] { n++; });
    rt.stop(5s);
    return n == 1 ? 0 : 4;
  });
  EXPECT_EQ(c.status, 0) << c.report();
}

TEST(End, StopAbandonsWhatNeverLeavesUserCode) {
  const Child c = child([] {
    Runtime rt{Machine{2, 1}.config()};
    if (rt.start()) std::_Exit(9);
    static std::atomic<bool> begun{false};
    rt.go({.name = "hog"}, [] {
      begun = true;
      std::atomic<uint64_t> n{0};
      for (;;) n.fetch_add(1, std::memory_order_relaxed);
    });
    while (!begun) std::this_thread::yield();
    const StopResult r = rt.stop(0s);
    return r.abandoned.size() == 1 && r.abandoned[0].name == "hog" ? 0 : 1;
  });
  EXPECT_EQ(c.status, 0) << c.report();
}

TEST(End, StopIsBoundedBesideWhatNeverComesToASafepoint) {
  for (const auto drain : {0ms, 100ms}) {
    const Child c = child([drain] {
      Runtime rt{Machine{2, 1}.config()};
      if (rt.start()) std::_Exit(9);
      static std::atomic<bool> begun{false}, let_it_end{false}, ended{false};
      static std::atomic<int> destroyed{0};
      rt.go({.name = "parked"}, [] {
        Defer d{[] { destroyed++; }};
        (void)make_chan<int>().recv();
      });
      eventually([] { return dump_goroutines().find("[chan receive]") != std::string::npos; });
      rt.go({.name = "hog"}, [] {
        begun = true;
        while (!let_it_end) {
        }
        ended = true;
      });
      while (!begun) std::this_thread::yield();
      const Time before = now();
      const StopResult r = rt.stop(drain);
      const auto took = now() - before;
      if (took < drain || took > 20s) return 1;
      // The parked one is unwound if the world could be stopped for it, and told of if not.
      bool hog = false;
      for (const GoroutineInfo& g : r.abandoned) hog |= g.name == "hog";
      if (!hog) return 2;
      if (r.abandoned.size() + r.unwound.size() != 2) return 3;
      if (static_cast<size_t>(destroyed) != r.unwound.size()) return 4;
      // The machine starts again beside it, and it may end beside that one.
      for (int round = 0; round < 4; round++) {
        if (rt.start()) return 5;
        std::atomic<int> n{0};
        for (int i = 0; i < 100; i++) rt.go([&] { n++; });
        if (round == 2) let_it_end = true;
        while (round == 2 && !ended) std::this_thread::yield();
        for (int i = 0; i < 100; i++) rt.go([&] { n++; });
        const StopResult again = rt.stop(20s);
        if (n != 200 || !again.abandoned.empty()) return 6;
      }
      std::puts("stopped");
      return 0;
    });
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 0) << c.report();
    EXPECT_EQ(c.out, "stopped\n") << c.report();
  }
}

// A goroutine in the kernel when its run ends is abandoned with its thread. When the call returns,
// another run is under way, whose Ps and queues are none of its business.
TEST(End, OneThatComesBackFromTheKernelInTheNextRunStaysOut) {
  for (const bool hand_off_at_once : {false, true}) {
    const Child c = child([hand_off_at_once] {
      static std::atomic<bool> in_call{false}, came_back{false};
      static std::atomic<pid_t> thread{0};
      int fds[2];
      if (::pipe(fds) != 0) std::_Exit(9);
      const auto left_in_the_kernel = [hand_off_at_once, fd = fds[0]] {
        auto read_it = [fd] {
          thread = thread_now();
          in_call = true;
          char byte;
          (void)!::read(fd, &byte, 1);
        };
        if (hand_off_at_once) {
          blocking(read_it);
        } else {
          SyscallRegion s;
          read_it();
        }
        came_back = true;
      };
      // Under Runtime, where no thread is the caller's: run() could not return without its own.
      Runtime rt{Machine{2, 1}.config()};
      if (rt.start()) std::_Exit(9);
      rt.go({.name = "late"}, left_in_the_kernel);
      while (!in_call) std::this_thread::yield();
      const StopResult r = rt.stop(0s);
      if (r.abandoned.size() != 1 || r.abandoned[0].name != "late") return 6;
      for (int round = 0; round < 3; round++) {
        run(
            [&] {
              if (num_goroutines() != 1) std::_Exit(1);
              std::atomic<int64_t> sum{0};
              WaitGroup wg;
              auto some_work = [&] {
                for (int i = 0; i < 100; i++)
                  wg.go([&, i] {
                    yield();
                    sum += i;
                  });
                wg.wait();
              };
              some_work();
              if (round == 1) {
                if (::write(fds[1], "x", 1) != 1) std::_Exit(9);
                // It has returned from its call once it waits for something else.
                const std::string where = "/proc/self/task/" + std::to_string(thread) + "/syscall";
                eventually([&] {
                  some_work();
                  char number[8] = "";
                  std::FILE* f = std::fopen(where.c_str(), "r");
                  if (!f) return true;
                  const bool got = std::fgets(number, sizeof number, f) != nullptr;
                  std::fclose(f);
                  return !got || std::atoi(number) == SYS_pause;
                });
              }
              for (int i = 0; i < 20; i++) some_work();
              if (sum < 21 * 4950) std::_Exit(2);
              if (!settle(1, kPatience)) std::_Exit(3);
              if (dump_goroutines().find("late") != std::string::npos) std::_Exit(4);
            },
            Machine{2, 2}.config());
      }
      std::puts("all runs are over");
      return came_back ? 5 : 0;
    });
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 0) << c.report();
    EXPECT_EQ(c.out, "all runs are over\n") << c.report();
    EXPECT_EQ(c.err, "") << c.report();
  }
}

// Threads of the host go on sending while runs begin and end: whom they take out of a channel's
// queue may be dropped at that moment.
TEST(End, PlainThreadsMaySendWhileTheRunEnds) {
  const Child c = child([] {
    constexpr int kThreads = 6, kRuns = scaled(2000, 60);
    struct Large {  // copied into a parked receiver's stack: long enough to be caught at it
      int n = 0;
      char bytes[4000] = {};
    };
    static std::atomic<bool> stop{false};
    static std::atomic<int> begun{0};
    Chan<Large> slots = make_chan<Large>(4), bare = make_chan<Large>();
    std::vector<std::thread> hosts;
    for (int i = 0; i < kThreads; i++)
      hosts.emplace_back([=] {
        begun++;
        for (int n = 0; !stop; n++) {
          (void)bare.try_send({n});
          (void)slots.try_send({n});
          if (n % 16 == 0) select(send(bare, Large{n}), send(slots, Large{n}), timeout(20us));
          if (n % 16 == 8) (void)bare.send_for({n}, 20us);
        }
      });
    while (begun < kThreads) std::this_thread::yield();
    for (int i = 0; i < kRuns; i++) {
      const int r = run(
          [&] {
            for (int g = 0; g < 8; g++)
              go([=] {
                for (;;) {
                  (void)bare.recv();
                  select(recv(slots), recv(bare));
                }
              });
            for (int k = 0; k < i % 20; k++) yield();
            return i % 100;
          },
          Machine{1 + i % 3, static_cast<uint64_t>(i) + 1}.config());
      if (r != i % 100) return 1;
    }
    // The channels work on without a runtime: nobody of those runs is in their queues.
    for (int i = 0; i < 10; i++)
      if (!bare.recv() || !slots.recv()) return 2;
    stop = true;
    for (std::thread& t : hosts) t.join();
    while (slots.try_recv()) {
    }
    if (slots.len() != 0 || bare.try_send({1})) return 3;
    std::puts("all runs are over");
    return 0;
  });
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_EQ(c.out, "all runs are over\n") << c.report();
  EXPECT_EQ(c.err, "") << c.report();
}

TEST(Config, AnUnknownOrOutOfRangeValueIsOneLineAndExit2) {
  for (const char* bad :
       {"WEFT_PROCS=zero", "WEFT_PROCS=-1", "WEFT_PROCS=2x", "WEFT_PROCS=99999999999999999999",
        "WEFT_PROCS=4096", "WEFT_SEED=abc", "WEFT_STACK_BYTES=lots", "WEFT_STACK_BYTES=-5",
        "WEFT_GUARD=perhaps", "WEFT_HIBERNATE=sometimes", "WEFT_DEBUG=nonsense",
        "WEFT_TRACEBACK=loud", "WEFT_THREADS_MAX=few", "WEFT_DETACHED_MAX=-3",
        "WEFT_BLOCKING_MAX=many"}) {
    const Child c = child([] { run([] { std::puts("ran"); }); }, {.env = {bad}});
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 2) << bad << c.report();
    EXPECT_EQ(c.out, "") << bad << c.report();
    const std::string name = std::string(bad).substr(0, std::string(bad).find('='));
    EXPECT_TRUE(c.says(name)) << bad << c.report();
    EXPECT_EQ(c.count("\n"), 1) << "one line" << bad << c.report();
  }
}

TEST(Config, TheEnvironmentOverridesTheProgram) {
  const Child c = child(
      [] {
        return run([] { return procs(); }, Machine{5, 1}.config());
      },
      {.env = {"WEFT_PROCS=3"}});
  EXPECT_EQ(c.status, 3) << c.report();
  const Child ignored = child(
      [] {
        Config config;
        config.procs = 5;
        config.use_env = false;
        return run([] { return procs(); }, config);
      },
      {.env = {"WEFT_PROCS=3", "WEFT_GUARD=perhaps"}});
  EXPECT_EQ(ignored.status, 5) << ignored.report();
}

TEST(Config, UnderRuntimeBadValuesAreAnErrorCode) {
  const Child c = child(
      [] {
        Runtime rt;
        return rt.start() == Errc::bad_config ? 12 : 1;
      },
      {.env = {"WEFT_GUARD=perhaps"}});
  EXPECT_EQ(c.status, 12) << c.report();
}

TEST(Config, TheSameSeedMakesTheSameChoices) {
  auto body = [] {
    run([] {
      // On one P a program without clocks is a function of its seed.
      Chan<int> a = make_chan<int>(64), b = make_chan<int>(64);
      for (int i = 0; i < 64; i++) {
        a.send(i);
        b.send(i);
      }
      std::string said;
      for (int i = 0; i < 64; i++) said += select(recv(a), recv(b)) ? 'b' : 'a';
      std::puts(said.c_str());
    });
  };
  const Child one = child(body, {.env = {"WEFT_PROCS=1", "WEFT_SEED=11"}});
  const Child again = child(body, {.env = {"WEFT_PROCS=1", "WEFT_SEED=11"}});
  const Child other = child(body, {.env = {"WEFT_PROCS=1", "WEFT_SEED=12"}});
  EXPECT_EQ(one.status, 0) << one.report();
  EXPECT_EQ(one.out, again.out);
  EXPECT_NE(one.out, other.out);
}

}  // namespace
}  // namespace weft::test
