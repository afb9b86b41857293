// Tasks are cancelled also where the kernel refuses the barrier in all threads: the world is stopped instead.
#include "tests/support/support.hpp"

#include <vector>

namespace weft::test {
namespace {

using namespace std::chrono_literals;

/// membarrier fails from its `first` call on.
template <class Body>
void without_barrier(std::uint64_t first, int procs, Body body) {
  rt::fault_install({{.call = rt::Call::Membarrier, .first = first, .last = ~std::uint64_t{0}, .error = EPERM}});
  Config c;
  c.procs = procs;
  c.seed = 7;
  c.use_env = false;
  EXPECT_EQ(run([&] { body(); }, c), 0);
  EXPECT_GE(rt::fault_hits(rt::Call::Membarrier), 1u);
  rt::fault_restore();
}

/// Parked in each kind of wait, about to park, or not begun: all end when they are cancelled.
void cancels_all_kinds() {
  for (int round = 0; round < scaled(100, 10); round++) {
    auto c = make_chan<int>();
    auto full = make_chan<int>(1);
    full.send(1);
    Mutex mu;
    std::lock_guard held{mu};
    std::atomic<int> ended{0};
    scope([&](Scope& s) {
      auto counted = [&](auto wait) {
        return [&ended, wait] {
          Defer d{[&] { ended++; }};
          wait();
        };
      };
      s.spawn(counted([&] { c.recv(); }));
      s.spawn(counted([&] { full.send(2); }));
      s.spawn(counted([&] { select(recv(c), send(full, 1)); }));
      s.spawn(counted([&] { mu.lock(); }));
      s.spawn(counted([&] { sleep_for(1h); }));
      for (int i = 0; i < round % 13; i++) yield();
      s.cancel();
    });
    ASSERT_EQ(ended, 5);
  }
  EXPECT_THROW(scope({.timeout = 1ms}, [] { make_chan<int>().recv(); }), std::system_error);  // its timer fires on no goroutine
}

TEST(RefusedBarrier, CancelsStopTheWorldInstead) {
  for (int procs : {1, 2, 8}) {
    without_barrier(1, procs, cancels_all_kinds);  // from the start
    without_barrier(4, procs, cancels_all_kinds);  // once it has worked
  }
}

}  // namespace
}  // namespace weft::test
