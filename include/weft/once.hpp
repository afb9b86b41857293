/// weft/once.hpp: doing something once.
#pragma once

#include <weft/error.hpp>
#include <weft/detail/value.hpp>
#include <weft/mutex.hpp>

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

namespace weft {

/// Go's sync.Once. The first call() runs its function; all return only after that has ended. A panic counts as done, so do
/// an exception and goexit. Calling it from within its own function deadlocks. Order: the end of the function happens before
/// every call's return. Cost: a load and a branch once it is done. Threads: any.
class Once {
 public:
  template <class F>
  void call(F&& f) {
    // [once] acquire: sees what the function did before the release in Mark.
    if (!done_.load(std::memory_order_acquire)) [[unlikely]] call_slow(f);
  }
  /// None: it is done. Else ctx is or became done while another runs it, and this is its err().
  template <class F>
  std::error_code call(const Context& ctx, F&& f) {
    if (done_.load(std::memory_order_acquire)) return {};  // [once]
    if (std::error_code e = mu_.lock(ctx)) return e;
    std::lock_guard l(mu_, std::adopt_lock);
    run(f);
    return {};
  }
  /// False: another was still running it when the time ran out. What this caller runs itself is not cut short.
  template <class Rep, class Period, class F>
  bool call_for(std::chrono::duration<Rep, Period> d, F&& f) {
    return call_until(Time(Clock::duration(detail::deadline_after(detail::to_ns(d)))), f);
  }
  template <class F>
  bool call_until(Time t, F&& f) {
    if (done_.load(std::memory_order_acquire)) return true;  // [once]
    if (!mu_.try_lock_until(t)) return false;
    std::lock_guard l(mu_, std::adopt_lock);
    run(f);
    return true;
  }

 private:
  struct Mark {
    Once* o;
    ~Mark() { o->done_.store(true, std::memory_order_release); }  // [once]
  };
  template <class F>
  [[gnu::noinline]] void call_slow(F& f) {
    std::lock_guard l(mu_);
    run(f);
  }
  template <class F>
  void run(F& f) {
    if (done_.load(std::memory_order_relaxed)) return;
    Mark m{this};
    (void)std::invoke(f);
  }

  std::atomic<bool> done_{false};
  Mutex mu_;
};

namespace detail {

/// Whether the calling goroutine is being unwound by goexit or the runtime's stop, which no exception_ptr may hold.
bool unwinding_now() noexcept;
[[noreturn]] void panic_once_unwound();

template <class F>
struct OnceState {
  using R = std::remove_cvref_t<std::invoke_result_t<F&>>;
  using Stored = std::conditional_t<std::is_void_v<R>, char, R>;
  Once once;
  std::optional<F> f;  // gone once it has run
  std::optional<Stored> value;
  std::exception_ptr raised;
  explicit OnceState(F&& init) : f(std::move(init)) {}

  void run() {
    struct Forget {
      std::optional<F>& f;
      ~Forget() { f.reset(); }
    } forget{f};
    try {
      if constexpr (std::is_void_v<R>) {
        std::invoke(*f);
        value.emplace();
      } else {
        value.emplace(std::invoke(*f));
      }
    } catch (const Canceled&) {
      // The end of this caller's task is not that of the later ones.
      raised = std::make_exception_ptr(std::system_error(Errc::canceled));
      throw;
    } catch (...) {
      if (!unwinding_now()) raised = std::current_exception();
      throw;
    }
  }
  const Stored& get() {
    once.call([this] { run(); });
    return outcome();
  }
  /// It has run.
  const Stored& outcome() const {
    if (raised) std::rethrow_exception(raised);
    if (!value) panic_once_unwound();
    return *value;
  }
};

}  // namespace detail

/// What once_func() gives. Copies share the one run. The timed and Context forms limit how long it waits for another caller's run, not
/// its own.
template <class F>
class OnceFunc {
 public:
  explicit OnceFunc(F f) : s_(detail::make_shared_value<detail::OnceState<F>>(std::move(f))) {}
  void operator()() const { (void)s_->get(); }
  /// None: it has run. Else ctx is or became done first, and this is its err().
  std::error_code operator()(const Context& ctx) const {
    if (std::error_code e = s_->once.call(ctx, [this] { s_->run(); })) return e;
    (void)s_->outcome();
    return {};
  }
  /// False: the time ran out.
  template <class Rep, class Period>
  bool call_for(std::chrono::duration<Rep, Period> d) const {
    if (!s_->once.call_for(d, [this] { s_->run(); })) return false;
    (void)s_->outcome();
    return true;
  }

 private:
  std::shared_ptr<detail::OnceState<F>> s_;
};

/// What once_value() gives: the same, with a result.
template <class F>
class OnceValue {
 public:
  using Value = typename detail::OnceState<F>::R;
  explicit OnceValue(F f) : s_(detail::make_shared_value<detail::OnceState<F>>(std::move(f))) {}
  const Value& operator()() const { return s_->get(); }
  /// Null: ctx is or became done first, ctx.err() says why.
  const Value* operator()(const Context& ctx) const {
    if (s_->once.call(ctx, [this] { s_->run(); })) return nullptr;
    return &s_->outcome();
  }
  /// Null: the time ran out.
  template <class Rep, class Period>
  const Value* call_for(std::chrono::duration<Rep, Period> d) const {
    if (!s_->once.call_for(d, [this] { s_->run(); })) return nullptr;
    return &s_->outcome();
  }

 private:
  std::shared_ptr<detail::OnceState<F>> s_;
};

/// A function that runs f at its first call only. If f panics or throws, every call raises the same. Copies share the one run.
/// What f captured goes when it has run. Go: sync.OnceFunc.
template <class F>
OnceFunc<F> once_func(F f) {
  return OnceFunc<F>(std::move(f));
}

/// The same with a result, given by reference to all; it lives as long as a copy of the function. Go: sync.OnceValue.
template <class F>
  requires(!std::is_void_v<std::invoke_result_t<F&>>)
OnceValue<F> once_value(F f) {
  return OnceValue<F>(std::move(f));
}

}  // namespace weft
