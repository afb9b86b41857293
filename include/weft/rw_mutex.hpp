/// weft/rw_mutex.hpp: one writer or many readers.
#pragma once

#include <weft/detail/clock.hpp>
#include <weft/detail/section_cpu.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>

namespace weft {

class Context;  // context.hpp

/// Go's sync.RWMutex with the standard's SharedLockable names: std::shared_lock reads, std::unique_lock writes. Not owned.
/// A writer that waits keeps new readers out; readers that wait get in when a writer leaves, before the next writer. So reading
/// twice in one goroutine may deadlock, as in Go. Writers are served in order. At most 2^30 readers.
/// Order: an unlock happens before the lock_shared and lock that follow it, an unlock_shared before the lock that follows it.
/// Cost: one locked instruction each way when nobody waits. After some 16,000 reads without a writer readers count
/// themselves per CPU, without any, where the kernel has rseq and membarrier; that takes 64 B per CPU, and the next writer
/// 1 to 30 us more.
/// Threads: any.
/// Errors: unlocking what is not locked is fatal, as in Go; so is destroying one that is locked or waited for.
/// Lifetime: may be destroyed when every call on it has returned.
class RwMutex {
 public:
  RwMutex() = default;
  ~RwMutex() {
    if (word_.load(std::memory_order_relaxed) & ~kReads) end_use();
  }
  RwMutex(const RwMutex&) = delete;
  RwMutex& operator=(const RwMutex&) = delete;

  void lock() {
    if (!try_lock_fast()) lock_slow();
  }
  bool try_lock() { return try_lock_fast() || ((word_.load(std::memory_order_relaxed) & kSpread) && try_lock_slow()); }
  /// False: the time ran out.
  template <class Rep, class Period>
  bool try_lock_for(std::chrono::duration<Rep, Period> d) {
    return try_lock() || lock_until(detail::deadline_after(detail::to_ns(d)));
  }
  bool try_lock_until(Time t) { return try_lock() || lock_until(t.time_since_epoch().count()); }
  /// None: locked. Else ctx is or became done first, and this is its err().
  std::error_code lock(const Context& ctx);
  void unlock() {
    std::uint64_t held = kWriter;
    // [rw-mutex] release: publishes what this holder did.
    if (!word_.compare_exchange_strong(held, 0, std::memory_order_release, std::memory_order_relaxed)) unlock_slow();
  }

  void lock_shared() {
    if (count_here()) return;
    // [rw-mutex] acquire: sees what the last writer did. Counted though it may have to wait: lock_shared_slow() sees to that.
    const std::uint64_t w = word_.fetch_add(kRead + 1, std::memory_order_acquire);
    if (__builtin_expect(w & (kWriter | kQueued | kManyReads), 0)) lock_shared_slow(w);
  }
  bool try_lock_shared() {
    if (count_here()) return true;
    std::uint64_t w = word_.load(std::memory_order_relaxed);
    while (!(w & (kWriter | kQueued)))
      // [rw-mutex] acquire: as lock_shared().
      if (word_.compare_exchange_weak(w, w + 1, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    return false;
  }
  template <class Rep, class Period>
  bool try_lock_shared_for(std::chrono::duration<Rep, Period> d) {
    return try_lock_shared() || lock_shared_until(detail::deadline_after(detail::to_ns(d)));
  }
  bool try_lock_shared_until(Time t) { return try_lock_shared() || lock_shared_until(t.time_since_epoch().count()); }
  std::error_code lock_shared(const Context& ctx);
  void unlock_shared() {
    if (detail::section_count_out(spread_)) return;
    // [rw-mutex] release: what was read was read before the next writer writes.
    const std::uint64_t w = word_.fetch_sub(1, std::memory_order_release);
    if (__builtin_expect((w & (kWriter | kQueued | kSpread)) || !(w & kReaders), 0)) unlock_shared_slow(w);
  }

 private:
  static constexpr std::uint64_t kReaders = 0xffffffff;             // who read, or are about to find out that they must wait
  static constexpr std::uint64_t kWriter = std::uint64_t{1} << 32;  // somebody writes
  static constexpr std::uint64_t kQueued = std::uint64_t{1} << 33;  // somebody waits: newcomers queue
  static constexpr std::uint64_t kSpread = std::uint64_t{1} << 34;  // readers are counted per CPU as well
  static constexpr std::uint64_t kRead = std::uint64_t{1} << 35;    // from here on: reads since the last writer
  static constexpr std::uint64_t kManyReads = kRead << 14;
  static constexpr std::uint64_t kReads = ~(kRead - 1);
  friend struct RwMutexImpl;

  bool count_here() {
    // [rw-mutex] acquire: who finds the counts sees what was done before they were made.
    return spread_.load(std::memory_order_acquire) && detail::section_count_in(spread_);
  }
  bool try_lock_fast() {
    std::uint64_t w = word_.load(std::memory_order_relaxed);
    // [rw-mutex] acquire: sees what the holders before did.
    return !(w & ~kReads) &&
           word_.compare_exchange_strong(w, kWriter, std::memory_order_acquire, std::memory_order_relaxed);
  }
  bool try_lock_slow();
  void lock_slow();
  bool lock_until(std::int64_t deadline);
  void unlock_slow();
  void lock_shared_slow(std::uint64_t before);
  bool lock_shared_until(std::int64_t deadline);
  void unlock_shared_slow(std::uint64_t before);
  void end_use();

  std::atomic<std::uint64_t> word_{0};
  std::atomic<detail::PerCpu*> spread_{nullptr};
  std::atomic<std::uint32_t> guard_{0};  // of the queues
  void* writers_[2] = {nullptr, nullptr};
  void* readers_[2] = {nullptr, nullptr};
};

}  // namespace weft
