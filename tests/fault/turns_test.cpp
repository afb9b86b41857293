// What the kernel is asked for once goroutines overrun (runtime/sched/turns.hpp).
//
// Kernels before 6.12 take the wish and do nothing: what is checked is what was asked for; where the kernel shows it, that too.
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kShort = 100'000, kLong = 20'000'000;

struct Asked {
  int tid;
  std::uint64_t ns;
};

std::mutex lock;
std::vector<Asked> asked;

int note_wish(int tid, const arch::SchedAttr* attr) {
  {
    std::lock_guard held{lock};
    asked.push_back({tid != 0 ? tid : arch::thread_id(), attr->runtime});
  }
  return arch::kRealKernel.sched_setattr(tid, attr);
}

bool was_asked(int tid, std::uint64_t ns) {
  std::lock_guard held{lock};
  for (const Asked& a : asked)
    if (a.tid == tid && a.ns == ns) return true;
  return false;
}

arch::SchedAttr attr_of(int tid) {
  arch::SchedAttr a{};
  a.size = sizeof a;
  EXPECT_EQ(arch::kRealKernel.sched_getattr(tid, &a), 0);
  return a;
}

/// Computes until `cond`, without a call of the runtime.
template <class Cond>
bool compute_until(Cond cond) {
  const auto end = Clock::now() + kPatience;
  while (!cond())
    if (Clock::now() > end) return false;
  return true;
}

Config config(int procs) {
  Config c;
  c.procs = procs;
  c.seed = 7;
  c.use_env = false;
  return c;
}

/// `body` runs as goroutine 1; wishes are noted.
template <class Body>
void run_noting(const Config& c, Body body) {
  asked.clear();
  asked.reserve(1000);
  arch::kernel.sched_setattr = note_wish;
  EXPECT_EQ(run([&] { body(); }, c), 0);
  arch::kernel.sched_setattr = arch::kRealKernel.sched_setattr;
}

TEST(Turns, NothingIsAskedOfTheKernelWhereNobodyOverruns) {
  // On a machine with little CPU time to spare, who was not let run looks like one who overran: not each time.
  std::size_t least = ~std::size_t{0};
  for (int i = 0; i < 50 && least != 0; i++) {
    run_noting(config(2), [] {
      WaitGroup wg;
      for (int g = 0; g < 100; g++)
        wg.go([] {
          sleep_for(1ms);
          blocking([] { std::this_thread::sleep_for(1ms); });
        });
      wg.wait();
    });
    least = std::min(least, asked.size());
  }
  EXPECT_EQ(least, 0u);
}

TEST(Turns, LongOnesForWhoOverrunsAndShortOnesForWhoHasAP) {
  for (const char* way : {"", "preemptsignal"}) {
    SCOPED_TRACE(way);
    const std::uint64_t usual = attr_of(0).runtime;
    Config c = config(1);
    c.debug = way;
    run_noting(c, [] {
      std::atomic<int> hog_tid{0}, other_tid{0};
      std::atomic<bool> stop{false};
      WaitGroup wg;
      wg.go([&] {
        const int me = arch::thread_id();
        hog_tid = me;
        EXPECT_TRUE(compute_until([&] { return stop.load() && was_asked(me, kLong); }));
        safepoint();
        yield();
        EXPECT_TRUE(was_asked(me, kShort)) << "it has a P again";
      });
      while (other_tid == 0 || other_tid == hog_tid || !was_asked(other_tid, kShort)) {
        sleep_for(1ms);
        other_tid = arch::thread_id();
      }
      EXPECT_FALSE(was_asked(other_tid, kLong));
      stop = true;
      wg.wait();
    });
    EXPECT_EQ(attr_of(0).runtime, usual) << "the thread that called run() was left with other turns";
  }
}

TEST(Turns, AreTheSameForAllIfAskedToBe) {
  Config c = config(1);
  c.debug = "sameturns";
  run_noting(c, [] {
    std::atomic<bool> stop{false};
    go([&] { EXPECT_TRUE(compute_until([&] { return stop.load(); })); });
    for (int i = 0; i < 10; i++) sleep_for(1ms);
    stop = true;
    EXPECT_TRUE(settle(1, kPatience));
  });
  EXPECT_EQ(asked.size(), 0u);
}

TEST(Turns, AKernelThatRefusesIsNotAskedAgainAndNothingElseChanges) {
  for (rt::Call call : {rt::Call::SchedGetattr, rt::Call::SchedSetattr}) {
    rt::fault_install({{.call = call, .first = 1, .error = EPERM}});
    EXPECT_EQ(run(
                  [] {
                    std::atomic<bool> stop{false};
                    WaitGroup wg;
                    for (int i = 0; i < 4; i++) wg.go([&] { EXPECT_TRUE(compute_until([&] { return stop.load(); })); });
                    for (int i = 0; i < 50; i++) sleep_for(1ms);
                    stop = true;
                    wg.wait();
                  },
                  config(1)),
              0);
    const std::uint64_t hits = rt::fault_hits(call);
    rt::fault_restore();
    EXPECT_GE(hits, 1u);
    EXPECT_LE(hits, 3u);  // whoever was about to ask when the first was refused
  }
}

TEST(Turns, LeaveNicenessAndPolicyAsTheyAre) {
  std::thread([] {
    const int tid = arch::thread_id();
    ASSERT_EQ(::setpriority(PRIO_PROCESS, static_cast<id_t>(tid), ::getpriority(PRIO_PROCESS, static_cast<id_t>(tid)) + 3), 0);
    sched_param none{};
    ASSERT_EQ(::sched_setscheduler(tid, SCHED_BATCH, &none), 0);
    const arch::SchedAttr before = attr_of(tid);
    EXPECT_TRUE(arch::set_thread_turns(0, kLong));
    const arch::SchedAttr now = attr_of(tid);
    EXPECT_EQ(now.policy, static_cast<std::uint32_t>(SCHED_BATCH));
    EXPECT_EQ(now.nice, before.nice);
    if (before.runtime != 0) {  // the kernel has turns
      EXPECT_EQ(now.runtime, kLong);
    }
    EXPECT_TRUE(arch::set_thread_turns(tid, 0));
    EXPECT_EQ(attr_of(tid).runtime, before.runtime);
    // An idle thread's turns mean nothing: left alone.
    ASSERT_EQ(::sched_setscheduler(tid, SCHED_IDLE, &none), 0);
    EXPECT_TRUE(arch::set_thread_turns(0, kLong));
    EXPECT_EQ(attr_of(tid).policy, static_cast<std::uint32_t>(SCHED_IDLE));
  }).join();
}

TEST(Turns, AForkedChildHasTheUsualOnes) {
  const std::uint64_t usual = attr_of(0).runtime;
  run_noting(config(1), [&] {
    std::atomic<bool> stop{false};
    go([&] { EXPECT_TRUE(compute_until([&] { return stop.load(); })); });
    while (!was_asked(arch::thread_id(), kShort)) sleep_for(1ms);
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(attr_of(0).runtime == usual ? 0 : 1);
    int status = -1;
    blocking([&] { EXPECT_EQ(::waitpid(pid, &status, 0), pid); });
    EXPECT_EQ(status, 0);
    stop = true;
    EXPECT_TRUE(settle(1, kPatience));
  });
}

}  // namespace
}  // namespace weft::test
