// Coming back from a runtime call on another thread, for tests of what that does to addresses that somebody kept.
#pragma once

#include "tests/support/support.hpp"

namespace weft::test {

/// While one lives, goroutines that yield all the time keep the Ps busy, so that who yields may come back elsewhere. Each leaves
/// `junk` in the errno of its thread if that is not 0.
class Traffic {
 public:
  explicit Traffic(int junk = 0) {
    for (int i = 0; i < procs(); i++)
      wg_.go([this, junk] {
        while (!stop_) {
          if (junk) *weft_errno() = junk;
          yield();
        }
      });
  }
  ~Traffic() {
    stop_ = true;
    wg_.wait();
  }
  Traffic(const Traffic&) = delete;
  Traffic& operator=(const Traffic&) = delete;

 private:
  std::atomic<bool> stop_{false};
  WaitGroup wg_;
};

/// Gives way, as a preempted goroutine does, until it is on another thread. Needs two Ps or more and Traffic.
__attribute__((noinline)) inline void migrate() {
  const pid_t before = thread_now();
  eventually([&] {
    rt::current_g()->preempt.store(1, std::memory_order_relaxed);
    safepoint();
    return thread_now() != before;
  });
}

}  // namespace weft::test
