/// weft/semaphore.hpp: a number of permits, taken several at a time.
#pragma once

#include <weft/context.hpp>
#include <weft/detail/clock.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>

namespace weft {

/// Go's semaphore.Weighted (golang.org/x/sync). First come, first served: one that wants many holds up those behind it, so it is
/// not starved. Order: a release happens before the acquire that it lets go on.
/// Cost: one locked instruction each way when nobody waits. Threads: any. Lifetime: destroying one that is waited for is fatal.
/// Errors: releasing more than is held panics "semaphore: released more than held"; so does a negative number.
class Semaphore {
 public:
  explicit Semaphore(std::int64_t size) : size_(size), word_(size * 2) {
    if (size < 0) bad_weight();
  }
  ~Semaphore() {
    if (word_.load(std::memory_order_relaxed) & kQueued) destroyed_in_use();
  }
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;

  /// Parks until n permits are free and nobody is before us. More than there are at all: for ever, holding up nobody.
  void acquire(std::int64_t n = 1) {
    if (!try_acquire(n)) acquire_slow(n);
  }
  /// Never blocks. False: not free, or somebody waits.
  bool try_acquire(std::int64_t n = 1) {
    if (n < 0) bad_weight();
    std::int64_t w = word_.load(std::memory_order_relaxed);
    while (!(w & kQueued) && w >= n * 2)
      // [semaphore] acquire: sees what was done before the release in release().
      if (word_.compare_exchange_weak(w, w - n * 2, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    return false;
  }
  /// False: the time ran out.
  template <class Rep, class Period>
  bool try_acquire_for(std::int64_t n, std::chrono::duration<Rep, Period> d) {
    return try_acquire(n) || acquire_until(n, detail::deadline_after(detail::to_ns(d)));
  }
  bool try_acquire_until(std::int64_t n, Time t) { return try_acquire(n) || acquire_until(n, t.time_since_epoch().count()); }
  /// None: acquired. Else ctx is or became done first, this is its err(), and nothing is held.
  std::error_code acquire(const Context& ctx, std::int64_t n = 1) {
    if (ctx && ctx.head()->never_done && try_acquire(n)) return {};
    return acquire_within(ctx, n);
  }

  void release(std::int64_t n = 1) {
    std::int64_t w = word_.load(std::memory_order_relaxed);
    // [semaphore] release: publishes what was done while it was held.
    while (n >= 0 && !(w & kQueued) && w / 2 + n <= size_)
      if (word_.compare_exchange_weak(w, w + n * 2, std::memory_order_release, std::memory_order_relaxed)) return;
    release_slow(n);
  }

 private:
  static constexpr std::int64_t kQueued = 1;  // somebody waits: the rest of the word changes under the guard only
  friend struct SemaphoreImpl;

  void acquire_slow(std::int64_t n);
  bool acquire_until(std::int64_t n, std::int64_t deadline);
  std::error_code acquire_within(const Context& ctx, std::int64_t n);
  void release_slow(std::int64_t n);
  [[noreturn]] static void bad_weight();
  void destroyed_in_use();

  const std::int64_t size_;
  std::atomic<std::int64_t> word_;        // twice the permits that are free | queued
  std::atomic<std::uint32_t> guard_{0};   // of waiters_
  void* waiters_[2] = {nullptr, nullptr};
};

}  // namespace weft
