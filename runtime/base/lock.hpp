// Two locks: SpinLock for an object's few instructions, Mutex for the scheduler's lists. And their ranks.
//
// SpinLock   One word, taken by exchange, released by a store: the budget of a channel operation is four exchanges per
//            round trip, so the release must not be a read-modify-write, and nobody can sleep on it. A holder that the
//            kernel has switched out is waited for with sched_yield, then with short sleeps.
// Mutex      Three states on a futex. Off the fast paths.
// Ranks      A thread takes locks in rising rank only (same rank: rising address). Debug builds check it.
// Orders     [lock] acquire on taking, release on letting go: the next holder sees what this one did.
#pragma once

#include <cstdint>

#include "runtime/base/atomic.hpp"

namespace weft::rt {

/// Lowest is taken first.
enum class Rank : std::uint8_t {
  Object,   // channels, wait groups, mutexes of users (SpinLock; several by rising address)
  World,    // Sched::world: start, stop, set_procs
  Freeze,   // Sched::freezing: standing still at any instruction
  Timers,   // P::timers
  Poller,   // descriptors' waiters
  Sched,    // Sched::mu: idle lists, global queue
  GTable,   // descriptor slabs
  RunSlots, // slots of copyable stacks
  Stacks,   // central stack lists
  Log,
};

class SpinLock {
 public:
  WEFT_ALWAYS_INLINE void lock() {
    if (WEFT_UNLIKELY(word_.exchange(1, memory_order_acquire) != 0)) lock_slow();  // [lock]
  }
  WEFT_ALWAYS_INLINE bool try_lock() {
    return peek(word_) == 0 && word_.exchange(1, memory_order_acquire) == 0;  // [lock]
  }
  WEFT_ALWAYS_INLINE void unlock() { word_.store(0, memory_order_release); }  // [lock]
  /// For reports, which must not wait for ever: false if somebody holds it for about a millisecond.
  bool lock_for_report();
  /// False: whoever held it before is done with what it guards.
  bool held() const { return word_.load(memory_order_acquire) != 0; }  // [lock]

 private:
  void lock_slow();
  std::atomic<std::uint32_t> word_{0};
};

class Mutex {
 public:
  explicit constexpr Mutex(Rank rank) : rank_(rank) {}
  void lock();
  bool try_lock();
  void unlock();

 private:
  std::atomic<std::uint32_t> word_{0};  // 0 free, 1 held, 2 held and somebody sleeps
  [[maybe_unused]] Rank rank_;
};

}  // namespace weft::rt
