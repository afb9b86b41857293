/// weft/mutex.hpp: mutual exclusion between goroutines, and plain threads.
#pragma once

#include <weft/detail/clock.hpp>
#include <weft/detail/section_cpu.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>

namespace weft {

class Context;  // context.hpp

/// Go's sync.Mutex with the standard's Lockable names. Not owned: another goroutine may unlock it. Not recursive.
/// Order: an unlock happens before the lock that follows it. Cost: one locked instruction to lock when uncontended, none to
/// unlock where the kernel has rseq and membarrier and nobody has waited of late, else one.
/// Errors: unlocking an unlocked one is fatal, as in Go. Lifetime: may be destroyed as soon as its last unlock() has
/// handed over; destroying one that is locked or waited for is fatal.
class Mutex {
 public:
  Mutex() = default;
  ~Mutex() {
    if (word_.load(std::memory_order_relaxed) & ~kIdle) destroyed_in_use();
  }
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() {
    std::uint32_t w = word_.load(std::memory_order_relaxed);
    // [mutex] acquire: sees what the last holder did before its release in unlock().
    if ((w & (kLocked | kStarving)) ||
        !word_.compare_exchange_strong(w, w | kLocked, std::memory_order_acquire, std::memory_order_relaxed))
      lock_slow();
  }
  /// Never blocks.
  bool try_lock() {
    std::uint32_t w = word_.load(std::memory_order_relaxed);
    // [mutex] as lock().
    return !(w & kLocked) && !(w & kStarving) &&
           word_.compare_exchange_strong(w, w | kLocked, std::memory_order_acquire, std::memory_order_relaxed);
  }
  /// False: the time ran out.
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d) {
    return try_lock() || lock_until(detail::deadline_after(detail::to_ns(d)));
  }
  /// None: locked. Else ctx is or became done first, and this is its err().
  std::error_code lock(const Context& ctx);
  bool try_lock_until(Time t) { return try_lock() || lock_until(t.time_since_epoch().count()); }

  void unlock() {
    if (!unlock_fast()) unlock_slow();
  }

 private:
  static constexpr std::uint32_t kLocked = 1;    // somebody holds it
  static constexpr std::uint32_t kQueued = 2;    // there may be waiters
  static constexpr std::uint32_t kWoken = 4;     // a waiter is on its way: unlock wakes no other
  static constexpr std::uint32_t kStarving = 8;  // the next unlock hands over to the oldest waiter
  static constexpr std::uint32_t kShared = 16;   // unlock is a compare-exchange, so that what is set beside kLocked stays
  static constexpr std::uint32_t kRound = 32;    // and so many unlocks later it may be a store again
  static constexpr std::uint32_t kIdle = ~(kShared - 1);  // what may stay in the word of one that is free
  friend struct MutexImpl;

  bool unlock_fast() {
    // [mutex] release: publishes what this holder did to the next lock(). Both are the last touch.
    if (__builtin_expect(detail::section_replace(word_, kLocked, 0), 1)) return true;
    if (detail::has_sections()) return false;
    std::uint32_t held = kLocked;
    return word_.compare_exchange_strong(held, 0, std::memory_order_release, std::memory_order_relaxed);
  }
  void lock_slow();
  bool lock_until(std::int64_t deadline);
  void unlock_slow();
  void destroyed_in_use();

  std::atomic<std::uint32_t> word_{0};
  std::atomic<std::uint32_t> guard_{0};     // of waiters_
  void* waiters_[2] = {nullptr, nullptr};
};

}  // namespace weft
