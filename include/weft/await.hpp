/// weft/await.hpp: parking until somebody else's callback.
#pragma once

#include <weft/detail/clock.hpp>
#include <weft/detail/value.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace weft {

class Context;  // context.hpp

namespace detail {

enum class AwaitEnd : unsigned char { Opened, Abandoned, Ended /* by the deadline, the context, the task or scope */ };

/// One wait, shared by the waiting goroutine and the callbacks.
class AwaitGate {
 public:
  AwaitGate();
  ~AwaitGate();
  AwaitGate(const AwaitGate&) = delete;
  AwaitGate& operator=(const AwaitGate&) = delete;
  /// Parks until open() or abandon(). True: opened.
  bool wait();
  AwaitEnd wait_until(std::int64_t deadline);
  AwaitEnd wait(const Context& ctx);
  /// The first caller gets true and must then put the result in place and call open().
  bool claim();
  void open();
  void abandon();

 private:
  struct Impl;
  Impl* impl_;
};

[[noreturn]] void panic_await_abandoned();
bool is_done(const Context& ctx);

template <class R>
struct AwaitState {
  using Stored = std::conditional_t<std::is_void_v<R>, char, R>;
  AwaitGate gate;
  std::optional<Stored> result;
  std::atomic<int> handles{0};
};

}  // namespace detail

/// What a limited wait gives: nothing if it ended first.
template <class R>
using Awaited = std::conditional_t<std::is_void_v<R>, bool, std::optional<R>>;

namespace detail {
template <class R, class F, class Wait>
Awaited<R> await_within(F&& f, Wait wait);
}

/// Resumes the goroutine that awaits. A counted handle; callable from any thread. The first call wins, later ones are
/// ignored; if the last copy dies uncalled, await panics.
template <class R>
class Resume {
  using State = detail::AwaitState<R>;

 public:
  Resume(const Resume& o) : s_(o.s_) {
    if (s_) s_->handles.fetch_add(1, std::memory_order_relaxed);
  }
  Resume(Resume&& o) noexcept : s_(std::move(o.s_)) {}
  Resume& operator=(Resume o) noexcept {
    std::swap(s_, o.s_);
    return *this;
  }
  ~Resume() {
    // [await-ref] the last handle sees every earlier one's claim.
    if (s_ && s_->handles.fetch_sub(1, std::memory_order_acq_rel) == 1 && s_->gate.claim()) s_->gate.abandon();
  }

  template <class V>
    requires(!std::is_void_v<R> && std::is_convertible_v<V, R>)
  void operator()(V&& v) const {
    if (!s_->gate.claim()) return;
    try {
      s_->result.emplace(std::forward<V>(v));
    } catch (...) {
      s_->gate.abandon();
      throw;
    }
    s_->gate.open();
  }
  void operator()() const
    requires(std::is_void_v<R>)
  {
    if (s_->gate.claim()) s_->gate.open();
  }

 private:
  template <class Q, class F>
  friend Q await(F&& f);
  template <class Q, class F, class Wait>
  friend Awaited<Q> detail::await_within(F&& f, Wait wait);
  explicit Resume(std::shared_ptr<State> s) : s_(std::move(s)) { s_->handles.store(1, std::memory_order_relaxed); }

  std::shared_ptr<State> s_;
};

/// Calls `f(Resume<R>)`, which starts something that will call the handle later, from any thread; parks until then.
/// Errors: panics if the last copy of the handle dies uncalled. An exception of f passes through.
/// Threads: any. Go: a channel and a callback by hand.
template <class R, class F>
R await(F&& f) {
  auto s = detail::make_shared_value<detail::AwaitState<R>>();
  std::forward<F>(f)(Resume<R>(s));
  if (!s->gate.wait()) detail::panic_await_abandoned();
  if constexpr (!std::is_void_v<R>) return std::move(*s->result);
}

namespace detail {
template <class R, class F, class Wait>
Awaited<R> await_within(F&& f, Wait wait) {
  auto s = make_shared_value<AwaitState<R>>();
  std::forward<F>(f)(Resume<R>(s));
  const AwaitEnd end = wait(s->gate);
  if (end == AwaitEnd::Abandoned) panic_await_abandoned();
  if constexpr (std::is_void_v<R>)
    return end == AwaitEnd::Opened;
  else
    return end == AwaitEnd::Opened ? std::optional<R>(std::move(*s->result)) : std::nullopt;
}
}  // namespace detail

/// The same for a limited time. Nothing: the time ran out. A handle that is called later is ignored, its value goes; ending what f has
/// started is up to the caller.
template <class R, class F>
Awaited<R> await_until(Time t, F&& f) {
  return detail::await_within<R>(std::forward<F>(f),
                                 [&](detail::AwaitGate& g) { return g.wait_until(t.time_since_epoch().count()); });
}
template <class R, class Rep, class Period, class F>
Awaited<R> await_for(std::chrono::duration<Rep, Period> d, F&& f) {
  return await_until<R>(Time(Clock::duration(detail::deadline_after(detail::to_ns(d)))), std::forward<F>(f));
}
/// The same with a context. Nothing: ctx is or became done first, ctx.err() says why. If it was done before, f is not called.
template <class R, class F>
Awaited<R> await(const Context& ctx, F&& f) {
  if (detail::is_done(ctx)) return {};
  return detail::await_within<R>(std::forward<F>(f), [&](detail::AwaitGate& g) { return g.wait(ctx); });
}

}  // namespace weft
