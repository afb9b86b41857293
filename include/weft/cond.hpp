/// weft/cond.hpp: waiting for a condition under a lock.
#pragma once

#include <weft/detail/clock.hpp>
#include <weft/detail/mask.hpp>
#include <weft/error.hpp>
#include <weft/mutex.hpp>
#include <weft/rw_mutex.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <system_error>
#include <type_traits>
#include <utility>

namespace weft {

class Context;  // context.hpp
class Cond;

namespace detail {

enum class CondLock : std::uint8_t { Mutex, Write, Read };

enum class CondEnd : std::uint8_t {
  Notified,
  Locked,  // notified, and the lock is held again
  Ended,     // by the deadline or the context
  Canceled,  // by the task or scope
  Held,   // that had come before: the lock was not let go
};

/// Queues, unlocks and parks in one step. The lock is not held when it returns, except with Locked and Held. `error`: the context's.
CondEnd cond_wait(Cond& cv, void* lock, CondLock kind, std::int64_t deadline);
CondEnd cond_wait(Cond& cv, void* lock, CondLock kind, const Context& ctx, std::error_code& error);

template <class L>
struct CondLockOf;
template <>
struct CondLockOf<std::unique_lock<Mutex>> {
  static constexpr CondLock kKind = CondLock::Mutex;
  static void relock(std::unique_lock<Mutex>& u) {
    if (u.mutex()->try_lock()) return;
    CancelMask mask;
    u.mutex()->lock();
  }
};
template <>
struct CondLockOf<std::unique_lock<RwMutex>> {
  static constexpr CondLock kKind = CondLock::Write;
  static void relock(std::unique_lock<RwMutex>& u) {
    if (u.mutex()->try_lock()) return;
    CancelMask mask;
    u.mutex()->lock();
  }
};
template <>
struct CondLockOf<std::shared_lock<RwMutex>> {
  static constexpr CondLock kKind = CondLock::Read;
  static void relock(std::shared_lock<RwMutex>& u) {
    if (u.mutex()->try_lock_shared()) return;
    CancelMask mask;
    u.mutex()->lock_shared();
  }
};

template <class L>
concept CondLockable = requires { CondLockOf<L>::kKind; };

}  // namespace detail

/// Go's sync.Cond with the standard's names; L is a std::unique_lock of a Mutex or RwMutex, or a std::shared_lock of an RwMutex.
/// A notification wakes exactly one, the one that has waited longest; whoever comes later cannot steal it. No spurious wake-ups.
/// All forms return with the lock held. Order: what happened before a notify happens before the wait that it ends.
/// Cost: O(1), no allocation. Threads: any. Lifetime: destroying one that is waited for is fatal.
/// Go: any Locker serves there; here unlocking must not wait, so the three locks it is.
/// Cancelled by its task or scope, a wait takes the lock again before it throws Canceled.
/// A goroutine that the runtime's stop unwinds in a wait does not lock again: its lock is released from the mutex.
class Cond {
 public:
  Cond() = default;
  ~Cond() {
    if (first_.load(std::memory_order_relaxed)) destroyed_in_use();
  }
  Cond(const Cond&) = delete;
  Cond& operator=(const Cond&) = delete;

  template <detail::CondLockable L>
  void wait(L& u) {
    using detail::CondEnd;
    CondEnd end;
    {
      Relock<L> r(u);
      r.after(end = detail::cond_wait(*this, u.mutex(), detail::CondLockOf<L>::kKind, detail::kForever));
    }
    if (end == CondEnd::Canceled) throw Canceled();
  }
  template <detail::CondLockable L, class Pred>
    requires std::is_invocable_r_v<bool, Pred&>
  void wait(L& u, Pred holds) {
    while (!holds()) wait(u);
  }

  /// False: the time ran out.
  template <detail::CondLockable L, class Rep, class Period>
  bool wait_for(L& u, std::chrono::duration<Rep, Period> d) {
    return wait_until_ns(u, detail::deadline_after(detail::to_ns(d)));
  }
  template <detail::CondLockable L>
  bool wait_until(L& u, Time t) {
    return wait_until_ns(u, t.time_since_epoch().count());
  }
  /// What the predicate says at the end.
  template <detail::CondLockable L, class Rep, class Period, class Pred>
  bool wait_for(L& u, std::chrono::duration<Rep, Period> d, Pred holds) {
    const std::int64_t deadline = detail::deadline_after(detail::to_ns(d));
    while (!holds())
      if (!wait_until_ns(u, deadline)) return holds();
    return true;
  }
  template <detail::CondLockable L, class Pred>
  bool wait_until(L& u, Time t, Pred holds) {
    while (!holds())
      if (!wait_until_ns(u, t.time_since_epoch().count())) return holds();
    return true;
  }

  /// None: notified. Else ctx is or became done first, and this is its err().
  template <detail::CondLockable L>
  std::error_code wait(L& u, const Context& ctx) {
    using detail::CondEnd;
    std::error_code e;
    CondEnd end;
    {
      Relock<L> r(u);
      r.after(end = detail::cond_wait(*this, u.mutex(), detail::CondLockOf<L>::kKind, ctx, e));
    }
    if (end != CondEnd::Canceled) return e;
    detail::result_canceled();
    return Errc::canceled;
  }
  /// None: the predicate holds.
  template <detail::CondLockable L, class Pred>
  std::error_code wait(L& u, const Context& ctx, Pred holds) {
    while (!holds())
      if (std::error_code e = wait(u, ctx)) return holds() ? std::error_code() : e;
    return {};
  }

  /// Wakes the one that has waited longest, if somebody waits. The lock need not be held.
  void notify_one() {
    // Stale only for who has not queued yet: with the lock held by the notifier there is none.
    if (first_.load(std::memory_order_relaxed)) notify(false);
  }
  /// Wakes all who wait now.
  void notify_all() {
    if (first_.load(std::memory_order_relaxed)) notify(true);
  }

 private:
  friend struct CondImpl;

  /// Unless after() was reached the wait was unwound: the lock is not ours any more.
  template <class L>
  class Relock {
   public:
    explicit Relock(L& u) : u_(u) {}
    bool after(detail::CondEnd end) {
      using detail::CondEnd;
      if (end != CondEnd::Locked && end != CondEnd::Held) detail::CondLockOf<L>::relock(u_);
      done_ = true;
      return end == CondEnd::Notified || end == CondEnd::Locked;
    }
    ~Relock() {
      if (!done_) (void)u_.release();
    }

   private:
    L& u_;
    bool done_ = false;
  };

  template <class L>
  bool wait_until_ns(L& u, std::int64_t deadline) {
    using detail::CondEnd;
    CondEnd end;
    bool notified;
    {
      Relock<L> r(u);
      end = detail::cond_wait(*this, u.mutex(), detail::CondLockOf<L>::kKind, detail::finite(deadline));
      notified = r.after(end);
    }
    if (end == CondEnd::Canceled) detail::result_canceled();
    return notified;
  }
  void notify(bool all);
  void destroyed_in_use();

  std::atomic<std::uint32_t> guard_{0};  // of the queue
  std::atomic<void*> first_{nullptr};    // the queue
  void* last_ = nullptr;
};

}  // namespace weft
