/// weft/time.hpp: sleeping, timers, tickers. Go 1.23 semantics: nothing stale after stop or reset.
///
/// Times are steady nanoseconds (weft::Clock). Nothing fires early; durations of any unit and size saturate.
/// Timers need a running runtime; sleeping on a plain thread blocks that thread.
#pragma once

#include <weft/chan.hpp>
#include <weft/detail/closure.hpp>
#include <weft/detail/clock.hpp>
#include <weft/detail/poll_cpu.hpp>

#include <chrono>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace weft {

inline Time now() { return Clock::now(); }

namespace detail {

void sleep_until_ns(std::int64_t deadline);

/// Counted; a channel timer ends with its last handle, that of an after_func runs on.
struct TimerHead;
TimerHead* timer_make_chan(std::int64_t deadline, std::int64_t period);
/// Room for the closure at `storage`; timer_start says that it is there. Until then timer_unref destroys none.
TimerHead* timer_make_func(std::int64_t deadline, const ClosureOps* ops, void** storage, const void* site);
void timer_start(TimerHead* t);
void timer_ref(TimerHead* t);
void timer_unref(TimerHead* t);
bool timer_stop(TimerHead* t);
bool timer_reset(TimerHead* t, std::int64_t deadline, std::int64_t period);
ChanHead* timer_chan(TimerHead* t);  // a counted reference
[[noreturn]] void fatal_nil_func();
[[noreturn]] void panic_ticker_interval(bool reset);
[[noreturn]] void panic_timer_uninitialized(bool reset);

class TimerRef {
 public:
  TimerRef() = default;
  explicit TimerRef(TimerHead* adopted) : t_(adopted) {}
  TimerRef(TimerRef&& o) noexcept : t_(std::exchange(o.t_, nullptr)) {}
  TimerRef& operator=(TimerRef&& o) noexcept {
    std::swap(t_, o.t_);
    return *this;
  }
  ~TimerRef() {
    if (t_) timer_unref(t_);
  }
  TimerHead* get() const { return t_; }

 private:
  TimerHead* t_ = nullptr;
};

}  // namespace detail

/// Parks for at least `d`; zero or negative returns at once. Go: time.Sleep, but also exact below a millisecond.
template <class Rep, class Period>
void sleep_for(std::chrono::duration<Rep, Period> d) {
  const std::int64_t ns = detail::to_ns(d);
  if (ns > 0) detail::sleep_until_ns(detail::deadline_after(ns));
}
inline void sleep_until(Time t) { detail::sleep_until_ns(t.time_since_epoch().count()); }

/// Sends the time on its channel once. Movable; a default-constructed one panics on stop and reset.
class Timer {
 public:
  Timer() = default;
  template <class Rep, class Period>
  explicit Timer(std::chrono::duration<Rep, Period> d)
      : t_(detail::timer_make_chan(detail::deadline_after(detail::to_ns(d)), 0)) {}
  explicit Timer(detail::TimerRef t) : t_(std::move(t)) {}

  /// len and cap are always 0. The value is the time it fired. Nil for after_func's.
  RecvChan<Time> chan() const {
    return t_.get() ? RecvChan<Time>(detail::ChanRef(detail::timer_chan(t_.get()))) : RecvChan<Time>();
  }
  /// True if it stopped a pending timer; for a channel timer also if it fired unread. Nothing is received afterwards.
  bool stop() {
    if (!t_.get()) detail::panic_timer_uninitialized(false);
    return detail::timer_stop(t_.get());
  }
  /// Starts it anew. True if it was pending. Nothing older is received afterwards. Works from its own function.
  template <class Rep, class Period>
  bool reset(std::chrono::duration<Rep, Period> d) {
    if (!t_.get()) detail::panic_timer_uninitialized(true);
    return detail::timer_reset(t_.get(), detail::deadline_after(detail::to_ns(d)), 0);
  }

 private:
  detail::TimerRef t_;
};

/// Sends the time on its channel every `period`; drops ticks for a slow receiver.
/// Errors: panics if the period is not positive.
class Ticker {
 public:
  Ticker() = default;
  template <class Rep, class Period>
  explicit Ticker(std::chrono::duration<Rep, Period> period) {
    const std::int64_t ns = detail::to_ns(period);
    if (ns <= 0) detail::panic_ticker_interval(false);
    t_ = detail::TimerRef(detail::timer_make_chan(detail::deadline_after(ns), ns));
  }
  RecvChan<Time> chan() const {
    return t_.get() ? RecvChan<Time>(detail::ChanRef(detail::timer_chan(t_.get()))) : RecvChan<Time>();
  }
  /// Does not close the channel. Harmless on a default-constructed one.
  void stop() {
    if (t_.get()) detail::timer_stop(t_.get());
  }
  template <class Rep, class Period>
  void reset(std::chrono::duration<Rep, Period> period) {
    const std::int64_t ns = detail::to_ns(period);
    if (ns <= 0) detail::panic_ticker_interval(true);
    if (!t_.get()) detail::panic_timer_uninitialized(true);
    detail::timer_reset(t_.get(), detail::deadline_after(ns), ns);
  }

 private:
  detail::TimerRef t_;
};

/// The channel of a new Timer. In select prefer `timeout`, which allocates nothing.
template <class Rep, class Period>
RecvChan<Time> after(std::chrono::duration<Rep, Period> d) {
  return Timer(d).chan();
}

/// Runs `f(args...)` in a goroutine of its own when the time has come. stop() returns true if f will not run; it does
/// not wait for one that has begun. Dropping the Timer changes nothing. reset() may run f again, also while it runs: f and the
/// arguments are passed as lvalues, each time the same ones; what can only be moved belongs into f.
template <class Rep, class Period, class F, class... Args>
[[gnu::always_inline]] inline Timer after_func(std::chrono::duration<Rep, Period> d, F&& f, Args&&... args) {
  static_assert(std::is_invocable_v<std::decay_t<F>&, std::decay_t<Args>&...>,
                "after_func may run f many times: f(args...) must be callable with lvalues");
  const void* site = detail::here();
  if (detail::is_nil_callable(f)) detail::fatal_nil_func();
  auto c = detail::bind(std::forward<F>(f), std::forward<Args>(args)...);
  using Closure = decltype(c);
  // reset() may run it again: each firing calls the closure in place and leaves it as it is.
  static constexpr detail::ClosureOps kCall{
      [](void* self) { static_cast<Closure*>(self)->again(); },
      [](void* self) { std::destroy_at(static_cast<Closure*>(self)); },
      sizeof(Closure),
      alignof(Closure),
  };
  void* storage;
  detail::TimerRef t(
      detail::timer_make_func(detail::deadline_after(detail::to_ns(d)), &kCall, &storage, site));
  ::new (storage) Closure(std::move(c));
  detail::timer_start(t.get());
  return Timer(std::move(t));
}

}  // namespace weft
