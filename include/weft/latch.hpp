/// weft/latch.hpp: a gate that opens when a number of things have happened.
#pragma once

#include <weft/wait_group.hpp>

#include <chrono>
#include <cstddef>
#include <system_error>

namespace weft {

/// std::latch for goroutines and plain threads, with timed and Context waits. Order: what happened before a count_down happens
/// before the waits that it lets go. Errors: counting below zero panics. Lifetime: may be destroyed as soon as all waits have
/// returned.
class Latch {
 public:
  explicit Latch(int expected) { left_.add(expected); }
  void count_down(int n = 1) { left_.add(-n); }
  /// True: open. Never blocks.
  bool try_wait() { return left_.wait_until_ns(0, true); }
  void wait() { left_.wait_until_ns(detail::kForever, true); }
  /// False: the time ran out.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) {
    return left_.wait_until_ns(detail::finite(detail::deadline_after(detail::to_ns(d))), true);
  }
  bool wait_until(Time t) { return left_.wait_until_ns(detail::finite(t.time_since_epoch().count()), true); }
  /// None: open. Else ctx is or became done first, and this is its err().
  std::error_code wait(const Context& ctx) { return left_.wait_ctx(ctx, true); }
  void arrive_and_wait(int n = 1) {
    count_down(n);
    wait();
  }
  /// It counts down in any case, here and below. False: the time ran out.
  template <class Rep, class Period>
  bool arrive_and_wait_for(std::chrono::duration<Rep, Period> d, int n = 1) {
    count_down(n);
    return wait_for(d);
  }
  std::error_code arrive_and_wait(const Context& ctx, int n = 1) {
    count_down(n);
    return wait(ctx);
  }

 private:
  WaitGroup left_;
};

}  // namespace weft
