/// weft/barrier.hpp: a number of goroutines that go on together, again and again.
#pragma once

#include <weft/detail/clock.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <system_error>
#include <utility>

namespace weft {

class Context;  // context.hpp

/// std::barrier for goroutines and plain threads, with timed and Context waits. In each phase `expected` arrive; the last one
/// runs the completion, then all go on. Order: what happened before an arrival happens before the completion, that before every
/// wait's return. A wait that ends early does not take its arrival back.
/// Errors: more arrivals than expected panic; destroying one that is waited for is fatal.
class Barrier {
 public:
  /// The phase that an arrival belongs to.
  class Arrival {
   public:
    Arrival() = default;

   private:
    friend class Barrier;
    explicit Arrival(std::uint64_t phase) : phase_(phase) {}
    std::uint64_t phase_ = 0;
  };

  explicit Barrier(int expected, std::function<void()> completion = {});
  ~Barrier();
  Barrier(const Barrier&) = delete;
  Barrier& operator=(const Barrier&) = delete;

  [[nodiscard]] Arrival arrive() { return Arrival(arrive_at(false)); }
  void wait(Arrival a) { wait_until_ns(a.phase_, detail::kForever); }
  /// False: the time ran out.
  template <class Rep, class Period>
  bool wait_for(Arrival a, std::chrono::duration<Rep, Period> d) {
    return wait_until_ns(a.phase_, detail::finite(detail::deadline_after(detail::to_ns(d))));
  }
  bool wait_until(Arrival a, Time t) { return wait_until_ns(a.phase_, detail::finite(t.time_since_epoch().count())); }
  /// None: the phase is over. Else ctx is or became done first, and this is its err().
  std::error_code wait(const Context& ctx, Arrival a) { return wait_ctx(ctx, a.phase_); }
  void arrive_and_wait() { wait(arrive()); }
  std::error_code arrive_and_wait(const Context& ctx) { return wait(ctx, arrive()); }
  template <class Rep, class Period>
  bool arrive_and_wait_for(std::chrono::duration<Rep, Period> d) {
    return wait_for(arrive(), d);
  }
  /// Arrives, and is not expected any more from the next phase on.
  void arrive_and_drop() { arrive_at(true); }

 private:
  friend struct BarrierImpl;
  std::uint64_t arrive_at(bool drop);
  bool wait_until_ns(std::uint64_t phase, std::int64_t deadline);
  std::error_code wait_ctx(const Context& ctx, std::uint64_t phase);

  std::atomic<std::uint32_t> guard_{0};  // of all below
  std::uint32_t expected_;
  std::uint32_t left_;
  std::uint64_t phase_ = 0;
  void* waiters_[2] = {nullptr, nullptr};
  std::function<void()> completion_;
};

}  // namespace weft
