/// weft/wait_group.hpp: waiting for a number of things to be done.
#pragma once

#include <weft/detail/clock.hpp>
#include <weft/go.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>
#include <utility>

namespace weft {

class Context;  // context.hpp

/// Go's sync.WaitGroup. Order: what happened before a done() happens before the wait() that it lets go.
/// Errors: panics "sync: negative WaitGroup counter". Lifetime: may be destroyed as soon as wait() has returned;
/// destroying it with waiters is fatal. Threads: any.
class WaitGroup {
 public:
  WaitGroup() = default;
  ~WaitGroup() {
    if (state_.load(std::memory_order_relaxed) != 0) destroyed_in_use();
  }
  WaitGroup(const WaitGroup&) = delete;
  WaitGroup& operator=(const WaitGroup&) = delete;

  void add(int n);
  void done() { add(-1); }
  /// Parks until the counter is zero.
  void wait() { wait_until_ns(detail::kForever); }
  /// False: the time ran out.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) {
    return wait_until_ns(detail::finite(detail::deadline_after(detail::to_ns(d))));
  }
  bool wait_until(Time t) { return wait_until_ns(detail::finite(t.time_since_epoch().count())); }
  /// None: the counter is zero. Else ctx is or became done first, and this is its err().
  std::error_code wait(const Context& ctx) { return wait_ctx(ctx, false); }

  /// add(1), `f(args...)` in a goroutine, done() when it has returned or called goexit. If f panics the process reports
  /// it: the counter stays up, so that nobody goes on as if f had succeeded.
  template <class F, class... Args>
  [[gnu::always_inline]] inline void go(F&& f, Args&&... args) {
    const void* site = detail::here();
    if (detail::is_nil_callable(f)) detail::fatal_nil_func();
    auto body = [wg = this, c = detail::bind(std::forward<F>(f), std::forward<Args>(args)...)]() mutable {
      struct Done {
        WaitGroup* wg;
        ~Done() { wg->done(); }
      } d{wg};
      c();
    };
    auto c = detail::bind(std::move(body));
    add(1);
    detail::launch(detail::new_goroutine(sizeof c, alignof(decltype(c))), std::move(c), site);
  }

 private:
  friend class Latch;

  bool wait_until_ns(std::int64_t deadline, bool latch = false);
  std::error_code wait_ctx(const Context& ctx, bool latch);
  void destroyed_in_use();

  friend struct WaitGroupImpl;

  std::atomic<std::uint64_t> state_{0};  // counter in the high half, "somebody waits" in the low one
  std::atomic<std::uint32_t> guard_{0};  // of waiters_
  void* waiters_[2] = {nullptr, nullptr};
};

}  // namespace weft
