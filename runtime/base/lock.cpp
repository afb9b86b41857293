// See lock.hpp.
#include "runtime/base/lock.hpp"

#include <sched.h>
#include <time.h>

#include "arch/futex.hpp"
#include "runtime/base/check.hpp"

namespace weft::rt {

// Backs off further each time: whoever has the lock's line does many operations before it has to give the line up, and two Ps
// at one channel get more done than by passing it to and fro.
WEFT_NOINLINE void SpinLock::lock_slow() {
  constexpr unsigned kPausesMax = 512;
  unsigned pauses = 8;
  for (unsigned round = 0;; round++) {
    for (unsigned i = 0; i < pauses; i++) arch::cpu_pause();
    if (peek(word_) == 0 && word_.exchange(1, memory_order_acquire) == 0) return;  // [lock]
    if (pauses < kPausesMax) {
      pauses *= 2;
    } else if (round < 32) {
      ::sched_yield();  // the holder may have lost its CPU
    } else {
      const timespec nap{0, 20'000};
      ::nanosleep(&nap, nullptr);
    }
  }
}

bool SpinLock::lock_for_report() {
  for (int tries = 0; !try_lock(); tries++) {
    if (tries == 100) return false;
    if (tries < 50) {
      arch::cpu_pause();
    } else {
      const timespec nap{0, 20'000};
      ::nanosleep(&nap, nullptr);
    }
  }
  return true;
}

#ifndef NDEBUG
namespace {

// Ranks held by this thread, one bit each. Locks are never held across a switch, so a thread-local is right here.
thread_local std::uint32_t held_ranks = 0;

WEFT_NOINLINE void rank_taken(Rank r) {
  const auto bit = 1u << static_cast<unsigned>(r);
  if (held_ranks >= bit) fatalf("weft: lock of rank %u taken while holding ranks %#x", static_cast<unsigned>(r), held_ranks);
  held_ranks |= bit;
}

WEFT_NOINLINE void rank_released(Rank r) { held_ranks &= ~(1u << static_cast<unsigned>(r)); }

}  // namespace
#else
namespace {
inline void rank_taken(Rank) {}
inline void rank_released(Rank) {}
}  // namespace
#endif

void Mutex::lock() {
  rank_taken(rank_);
  std::uint32_t w = 0;
  if (word_.compare_exchange_strong(w, 1, memory_order_acquire, memory_order_relaxed)) return;  // [lock]
  for (int i = 0; i < 100; i++) {
    if (peek(word_) == 0 && (w = 0, word_.compare_exchange_strong(w, 1, memory_order_acquire, memory_order_relaxed)))  // [lock]
      return;
    arch::cpu_pause();
  }
  while (word_.exchange(2, memory_order_acquire) != 0) arch::futex_wait(word_, 2);  // [lock]
}

bool Mutex::try_lock() {
  std::uint32_t w = 0;
  if (!word_.compare_exchange_strong(w, 1, memory_order_acquire, memory_order_relaxed)) return false;  // [lock]
  rank_taken(rank_);
  return true;
}

void Mutex::unlock() {
  rank_released(rank_);
  if (word_.exchange(0, memory_order_release) == 2) arch::futex_wake(word_, 1);  // [lock]
}

}  // namespace weft::rt
