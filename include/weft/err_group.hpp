/// weft/err_group.hpp: goroutines that work on one task, and their first failure.
#pragma once

#include <weft/context.hpp>
#include <weft/detail/mask.hpp>
#include <weft/once.hpp>
#include <weft/semaphore.hpp>
#include <weft/wait_group.hpp>

#include <atomic>
#include <chrono>
#include <exception>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

namespace weft {

namespace detail {
[[noreturn]] void panic_err_group_limit(int active);
}

/// Go's errgroup.Group. A function fails by returning an error code, or by an exception. The first failure is what wait()
/// gives, and the cause that the group's context is cancelled with; the rest is dropped. Order: what a function did happens
/// before wait() returns. Lifetime: may be destroyed as soon as wait() has returned; destroying it while functions run is fatal
/// if somebody waits. Cost: that of go() and a WaitGroup. Threads: any.
/// Go: an exception counts as a failure here, a Panic too, and wait() raises it again; there a panic ends the process.
class ErrGroup {
 public:
  /// Without a context of its own: functions get background(), a failure cancels nothing.
  ErrGroup() = default;
  /// Its context is a child of `parent`, done at the first failure or when wait() returns. Go: errgroup.WithContext.
  explicit ErrGroup(const Context& parent) : own_(with_cancel_cause(parent)) {}
  ErrGroup(const ErrGroup&) = delete;
  ErrGroup& operator=(const ErrGroup&) = delete;

  const Context& context() const { return own_ ? own_->ctx : background(); }

  /// At most n functions at a time; negative: no limit. Zero: none can start.
  /// Errors: panics while functions run under a limit.
  void set_limit(int n) {
    if (const int active = active_.load(std::memory_order_relaxed)) detail::panic_err_group_limit(active);
    limit_.reset();
    if (n >= 0) limit_.emplace(n);
  }

  /// Runs f(context()) or f() in a goroutine, which may return an error code or nothing. Parks while the limit is reached.
  template <class F>
  [[gnu::always_inline]] inline void go(F&& f) {
    const void* site = detail::here();
    if (detail::is_nil_callable(f)) detail::fatal_nil_func();
    if (limit_) limit_->acquire();
    start(std::forward<F>(f), site);
  }
  /// None: f runs. Else ctx is or became done while the limit was reached, this is its err(), and f does not run.
  template <class F>
  [[gnu::always_inline]] inline std::error_code go(const Context& ctx, F&& f) {
    const void* site = detail::here();
    if (detail::is_nil_callable(f)) detail::fatal_nil_func();
    if (std::error_code e = limit_ ? limit_->acquire(ctx) : ctx.err()) return e;
    start(std::forward<F>(f), site);
    return {};
  }
  /// False: the limit is reached, f does not run.
  template <class F>
  [[gnu::always_inline]] inline bool try_go(F&& f) {
    const void* site = detail::here();
    if (detail::is_nil_callable(f)) detail::fatal_nil_func();
    if (limit_ && !limit_->try_acquire()) return false;
    start(std::forward<F>(f), site);
    return true;
  }
  /// False: the limit was still reached when the time ran out, f does not run.
  template <class Rep, class Period, class F>
  [[gnu::always_inline]] inline bool try_go_for(std::chrono::duration<Rep, Period> d, F&& f) {
    const void* site = detail::here();
    if (detail::is_nil_callable(f)) detail::fatal_nil_func();
    if (limit_ && !limit_->try_acquire_for(1, d)) return false;
    start(std::forward<F>(f), site);
    return true;
  }
  template <class F>
  [[gnu::always_inline]] inline bool try_go_until(Time t, F&& f) {
    const void* site = detail::here();
    if (detail::is_nil_callable(f)) detail::fatal_nil_func();
    if (limit_ && !limit_->try_acquire_until(1, t)) return false;
    start(std::forward<F>(f), site);
    return true;
  }

  /// Parks until all functions have returned, then cancels the context. Gives the first failure, or rethrows it.
  /// In a task or scope that is cancelled: the context is cancelled at once; then, still when all functions have returned (they
  /// refer to the group), the first failure or Errc::canceled.
  std::error_code wait() {
    bool canceled = false;
    try {
      running_.wait();
    } catch (const Canceled&) {
      canceled = true;
    }
    if (canceled) {
      if (own_) own_->cancel();
      detail::CancelMask mask;
      running_.wait();
    }
    const std::error_code e = end();
    if (!canceled || e) return e;
    detail::result_canceled();
    return Errc::canceled;
  }
  /// True: no function runs. Never blocks, cancels nothing.
  bool try_wait() { return running_.wait_for(std::chrono::nanoseconds(0)); }
  /// As wait() if all functions return in time. Nullopt: the time ran out, nothing is cancelled, and functions run on that refer to
  /// the group: it must be waited for again before it goes.
  template <class Rep, class Period>
  std::optional<std::error_code> wait_for(std::chrono::duration<Rep, Period> d) {
    if (!running_.wait_for(d)) return std::nullopt;
    return end();
  }
  std::optional<std::error_code> wait_until(Time t) {
    if (!running_.wait_until(t)) return std::nullopt;
    return end();
  }
  /// The same with a context. Nullopt: ctx is or became done first, ctx.err() says why.
  std::optional<std::error_code> wait(const Context& ctx) {
    if (running_.wait(ctx)) return std::nullopt;
    return end();
  }

 private:
  template <class F>
  struct Body {
    ErrGroup* g;
    F f;
    void operator()() {
      struct Done {
        ErrGroup* g;
        ~Done() { g->finish(); }
      } done{g};
      try {
        if (std::error_code e = call()) g->fail(e, nullptr);
      } catch (...) {
        if (detail::unwinding_now()) throw;
        g->fail({}, std::current_exception());
      }
    }
    std::error_code call() {
      if constexpr (std::is_invocable_v<F&, Context>) {
        if constexpr (std::is_void_v<std::invoke_result_t<F&, Context>>)
          return std::invoke(f, g->context()), std::error_code();
        else
          return std::invoke(f, g->context());
      } else if constexpr (std::is_void_v<std::invoke_result_t<F&>>) {
        return std::invoke(f), std::error_code();
      } else {
        return std::invoke(f);
      }
    }
  };

  /// Given back unless a goroutine has it: a function may throw when it is moved.
  struct Permit {
    Semaphore* of;
    ~Permit() {
      if (of) of->release();
    }
  };

  template <class F>
  [[gnu::always_inline]] inline void start(F&& f, const void* site) {
    using C = detail::Bound<Body<std::decay_t<F>>>;
    Permit permit{limit_ ? &*limit_ : nullptr};
    C c{Body<std::decay_t<F>>{this, std::forward<F>(f)}};
    permit.of = nullptr;
    running_.add(1);
    if (limit_) active_.fetch_add(1, std::memory_order_relaxed);
    detail::launch(detail::new_goroutine(sizeof(C), alignof(C)), std::move(c), site);
  }
  void finish() {
    if (limit_) {
      active_.fetch_sub(1, std::memory_order_relaxed);
      limit_->release();
    }
    running_.done();  // the last touch
  }
  void fail(std::error_code e, std::exception_ptr raised) {
    first_.call([&] {
      error_ = e;
      raised_ = std::move(raised);
      if (own_) own_->cancel(why());
    });
  }
  /// All functions have returned.
  std::error_code end() {
    if (own_) own_->cancel(why());
    if (raised_) std::rethrow_exception(raised_);
    return error_;
  }
  std::exception_ptr why() const {
    if (raised_) return raised_;
    return error_ ? detail::as_cause(error_) : nullptr;
  }

  WaitGroup running_;
  std::optional<CancelCauseContext> own_;
  std::optional<Semaphore> limit_;
  std::atomic<int> active_{0};  // under a limit
  Once first_;
  std::error_code error_;
  std::exception_ptr raised_;
};

}  // namespace weft
