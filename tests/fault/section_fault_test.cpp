// The locks whose fast paths rely on a barrier, where the kernel refuses it: for a moment, and for good.
#include <mutex>
#include <shared_mutex>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

/// The word beside the thread's pointer to itself: the C library's table of thread-local storage.
std::uintptr_t behind_thread_pointer() {
  std::uintptr_t w = 0;
#if defined(__x86_64__)
  asm volatile("movq %%fs:8, %0" : "=r"(w));
#endif
  return w;
}

/// Waiters of a Mutex, a writer after many reads: both need the barrier where there are sections.
void contend() {
  Mutex mu;
  RwMutex rw;
  for (int i = 0; i < 3; i++) {
    for (int k = 0; k < 20'000; k++) {
      std::lock_guard l{mu};
      std::shared_lock r{rw};
    }
    mu.lock();
    rw.lock_shared();
    WaitGroup wg;
    for (int k = 0; k < 3; k++)
      wg.go([&] {
        std::unique_lock w{rw};
        std::lock_guard l{mu};
      });
    for (int k = 0; k < 5; k++) yield();
    EXPECT_FALSE(rw.try_lock());
    rw.unlock_shared();
    mu.unlock();
    wg.wait();
    EXPECT_TRUE(rw.try_lock());
    rw.unlock();
  }
}

void refused(std::uint64_t first, std::uint64_t last, int error) {
  for (int procs : {1, 2}) {
    rt::fault_install({{.call = rt::Call::Membarrier, .first = first, .last = last, .error = error}});
    Config c;
    c.procs = procs;
    c.seed = 7;
    c.use_env = false;
    EXPECT_EQ(run([] { contend(); }, c), 0);
    EXPECT_GE(rt::fault_hits(rt::Call::Membarrier), 1u);
    rt::fault_restore();
  }
}

TEST(SectionFault, WithoutMemoryForABarrierItIsAskedForAgain) {
  const bool there = detail::has_sections();
  refused(1, 5, ENOMEM);
  EXPECT_EQ(detail::has_sections(), there);
}

TEST(SectionFault, AForgottenRegistrationIsMadeAgain) {
  const bool there = detail::has_sections();
  refused(2, 2, EPERM);
  EXPECT_EQ(detail::has_sections(), there);
}

// The last one of its kind: from here on this process does without.
TEST(SectionFault, WhereBarriersAreRefusedLocksDoWithout) {
  // One whose readers are counted per CPU when that happens: nobody may begin a section for its counts any more.
  RwMutex spread;
  const auto read = [&](int times) {
    for (int k = 0; k < times; k++) std::shared_lock r{spread};
  };
  read(20'000);
  spread.lock_shared();
  const std::uintptr_t before = behind_thread_pointer();
  refused(1, ~std::uint64_t{0}, EPERM);
  EXPECT_FALSE(detail::has_sections());
  read(100);
  spread.unlock_shared();
  EXPECT_EQ(behind_thread_pointer(), before) << "a section took the thread's own words for its struct rseq";
  EXPECT_TRUE(spread.try_lock());
  EXPECT_FALSE(spread.try_lock_shared());
  spread.unlock();
}

}  // namespace
}  // namespace weft::test
