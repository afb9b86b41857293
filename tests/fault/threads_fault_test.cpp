// The kernel refuses threads: the first, the k-th, all for a while. Nobody who could run is left behind.
#include <unistd.h>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

/// The calls of pthread_create that fail while `body` runs as goroutine 1; sysmon's is the first of a run.
template <class Body>
void with_refused(std::uint64_t first, std::uint64_t last, int procs, Body body) {
  rt::fault_install({{.call = rt::Call::PthreadCreate, .first = first, .last = last, .error = EAGAIN}});
  Config c;
  c.procs = procs;
  c.seed = 5;
  c.use_env = false;
  EXPECT_EQ(run([&] { body(); }, c), 0);
  EXPECT_GE(rt::fault_hits(rt::Call::PthreadCreate), 1u);
  rt::fault_restore();
}

/// Work for all kinds of threads: on Ps, in blocking calls, locked.
void everybody_works() {
  std::atomic<int> done{0}, blocked{0};
  constexpr int kEach = 8;
  for (int i = 0; i < kEach; i++) {
    go([&] {
      for (int j = 0; j < 20; j++) yield();
      done++;
    });
    go([&] {
      blocking([&] {  // each on a thread of its own
        for (blocked++; blocked < kEach;) ::usleep(500);
      });
      done++;
    });
    go([&] {
      lock_os_thread();
      sleep_for(1ms);
      unlock_os_thread();
      done++;
    });
  }
  EXPECT_TRUE(eventually([&] { return done == 3 * kEach; })) << done << " of " << 3 * kEach;
}

TEST(RefusedThreads, TheFirstOnesOrTheKthCostNobodyHisTurn) {
  for (int procs : {1, 2, 4})
    for (std::uint64_t k = 1; k <= 6; k++) {
      SCOPED_TRACE(k);
      with_refused(k, k, procs, everybody_works);
    }
}

TEST(RefusedThreads, AllForAWhileCostTimeOnly) {
  for (int procs : {1, 4}) with_refused(1, 60, procs, everybody_works);
}

TEST(RefusedThreads, SysmonTriesAgainWhenNothingElseHappens) {
  // The only other goroutine is in the queue of a P that has no thread, and the one that runs is in the kernel.
  with_refused(2, 4, 1, [] {
    std::atomic<bool> ran{false};
    go([&] { ran = true; });
    blocking([&] {
      for (int i = 0; i < 20'000 && !ran; i++) ::usleep(1000);
    });
    EXPECT_TRUE(ran.load()) << "nobody came for it";
  });
}

}  // namespace
}  // namespace weft::test
