/// weft/task.hpp: goroutines with a result, and scopes that no goroutine outlives.
///
/// Cancelling  A task or scope that is cancelled stays so: each wait of its goroutines that is under way ends, each later one fails
///             at once. A wait that has a result says so in it (std::error_code: Errc::canceled; Recv: RecvStatus::Canceled; bool:
///             false); one that has none (send, recv, range-for, lock, wait, sleep_for, select ...) throws weft::Canceled (error.hpp),
///             which ends the task. What need not wait happens as always, and an operation that has happened keeps its result.
///             Code that computes asks canceled(). A blocking() call that has begun is waited for.
/// Shielded    Deferred calls, destructors that run while an exception unwinds, the ends of tasks and scopes; and what shield() says.
///             A destructor that waits when nothing unwinds is not known to be one: give it a Shield.
/// Outside     Nothing else is ever cancelled this way: goroutines of go() are nobody's children, and plain threads have no task.
/// Order:      what happened before spawn happens before the task's first statement; that before what sees its end.
#pragma once

#include <weft/chan.hpp>
#include <weft/context.hpp>
#include <weft/detail/clock.hpp>
#include <weft/detail/closure.hpp>
#include <weft/detail/mask.hpp>
#include <weft/error.hpp>
#include <weft/go.hpp>
#include <weft/once.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

class Scope;
template <class R>
class Task;

namespace detail {

/// The runtime's part of a task and of a scope; both counted.
struct TaskHead;
struct ScopeHead;

/// How a result is kept.
struct ResultOps {
  std::size_t size;
  std::size_t align;
  void (*destroy)(void* slot);
};

/// A new task, with its goroutine's reference. In `scope` it is a child from here on.
TaskHead* task_make(const ResultOps* ops, ScopeHead* scope);
void task_ref(TaskHead* t);
void task_unref(TaskHead* t);
void* task_slot(TaskHead* t);
/// In its goroutine: the first thing, the outcome, the last thing (which gives up the goroutine's reference).
void task_enter(TaskHead* t);
void task_succeeded(TaskHead* t);
void task_canceled(TaskHead* t);
void task_failed(TaskHead* t, std::exception_ptr e);
void task_finish(TaskHead* t);
/// It never ran, and never will.
void task_dropped(TaskHead* t);
/// The handle's side.
void task_own(TaskHead* t);        // the handle cancels and joins when it goes
void task_drop_handle(TaskHead* t) noexcept;
void task_take(TaskHead* t);       // waits; throws unless there is a result, which is the caller's then
bool task_wait(TaskHead* t, std::int64_t deadline);
std::error_code task_wait(TaskHead* t, const Context& ctx);
bool task_done(const TaskHead* t);
void task_cancel(TaskHead* t);
std::uint64_t task_goid(const TaskHead* t);
const RecvChan<void>& task_done_chan(TaskHead* t);
[[noreturn]] void panic_empty_task(const char* what);

template <class R>
struct ResultOf {
  using Stored = std::conditional_t<std::is_reference_v<R>, std::remove_reference_t<R>*, R>;
  static constexpr ResultOps kOps{
      sizeof(Stored), alignof(Stored), [](void* slot) { std::destroy_at(static_cast<Stored*>(slot)); }};
};
template <>
struct ResultOf<void> {
  static constexpr ResultOps kOps{0, 1, nullptr};
};

/// The goroutine's reference, from start to end.
class TaskRun {
 public:
  explicit TaskRun(TaskHead* t) : t_(t) { task_enter(t); }
  ~TaskRun() { task_finish(t_); }
  TaskRun(const TaskRun&) = delete;
  TaskRun& operator=(const TaskRun&) = delete;

 private:
  TaskHead* t_;
};

template <class R, class C>
struct TaskBody {
  TaskHead* t;
  std::optional<C> call;  // gone before the task counts as done

  TaskBody(TaskHead* head, C&& c) : t(head), call(std::move(c)) {}
  TaskBody(TaskBody&& o) noexcept(std::is_nothrow_move_constructible_v<C>) : t(o.t), call(std::move(o.call)) { o.t = nullptr; }
  TaskBody& operator=(TaskBody&&) = delete;
  ~TaskBody() {
    if (t) task_dropped(t);
  }

  void operator()() {
    TaskHead* const head = std::exchange(t, nullptr);
    TaskRun run(head);
    struct Drop {
      std::optional<C>& c;
      ~Drop() {
        CancelMask mask;
        c.reset();
      }
    } drop{call};
    try {
      if constexpr (std::is_void_v<R>)
        call->give();
      else if constexpr (std::is_reference_v<R>)
        ::new (task_slot(head)) typename ResultOf<R>::Stored(std::addressof(static_cast<std::remove_reference_t<R>&>(call->give())));
      else
        ::new (task_slot(head)) R(call->give());
      task_succeeded(head);
    } catch (const Canceled&) {
      task_canceled(head);
    } catch (...) {
      if (unwinding_now()) throw;
      task_failed(head, std::current_exception());
    }
  }
};

template <class F, class... Args>
using TaskResult = std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>;

/// `attributes`: null for none.
template <class F, class... Args>
Task<TaskResult<F, Args...>> start_task(const Spawn* attributes, ScopeHead* scope, const void* site, F&& f, Args&&... args) {
  using R = TaskResult<F, Args...>;
  if (is_nil_callable(f)) fatal_nil_func();
  auto c = bind(std::forward<F>(f), std::forward<Args>(args)...);
  Task<R> handle(task_make(&ResultOf<R>::kOps, scope));
  using Body = Bound<TaskBody<R, decltype(c)>>;
  struct Unborn {
    TaskHead* t;
    ~Unborn() {
      if (t) task_dropped(t);
    }
  } unborn{handle.head()};
  Body body{TaskBody<R, decltype(c)>(handle.head(), std::move(c))};
  unborn.t = nullptr;
  launch(attributes ? new_goroutine_with(*attributes, sizeof body, alignof(Body), false) : new_goroutine(sizeof body, alignof(Body)),
         std::move(body), site);
  if (!scope) task_own(handle.head());
  return handle;
}

}  // namespace detail

/// What spawn() gives: the handle of a goroutine that ends with a result. Movable; a default-constructed one is empty.
/// Lifetime: dropping a handle of spawn() or Runtime::submit() cancels the task and waits for its end; a failure that nobody has
///           asked for is logged then. One of Scope::spawn() belongs to the scope: dropping it does neither.
/// Errors:   what the task's function throws, a Panic too, is kept for get(); it is no uncaught panic. Asking an empty handle, or for
///           the result twice, panics; so does a task that waits for itself.
/// Threads:  any; a plain thread blocks. One at a time uses a handle; done() and cancel() may come from others meanwhile.
template <class R>
class Task {
 public:
  Task() = default;
  explicit Task(detail::TaskHead* t) : t_(t) { detail::task_ref(t); }
  Task(Task&& o) noexcept : t_(std::exchange(o.t_, nullptr)) {}
  Task& operator=(Task&& o) noexcept {
    if (this != &o) {
      if (t_) detail::task_drop_handle(t_);
      t_ = std::exchange(o.t_, nullptr);
    }
    return *this;
  }
  ~Task() {
    if (t_) detail::task_drop_handle(t_);
  }

  /// Waits for the end and moves the result out: once. Rethrows what the function threw. Throws Canceled if the task was
  /// cancelled before it had a result, or the caller is while it waits. Panics if goexit ended the task.
  R get() {
    detail::TaskHead* t = need("get");
    detail::task_take(t);
    if constexpr (std::is_reference_v<R>)
      return static_cast<R>(**static_cast<typename detail::ResultOf<R>::Stored*>(detail::task_slot(t)));
    else if constexpr (!std::is_void_v<R>)
      return std::move(*static_cast<R*>(detail::task_slot(t)));
  }

  /// Waits for the end, whatever it is.
  void wait() const { (void)detail::task_wait(need("wait"), detail::kForever); }
  /// True: it has ended. Never blocks.
  bool try_wait() const { return detail::task_done(need("try_wait")); }
  /// False: the time ran out.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> d) const {
    return detail::task_wait(need("wait_for"), detail::finite(detail::deadline_after(detail::to_ns(d))));
  }
  bool wait_until(Time at) const {
    return detail::task_wait(need("wait_until"), detail::finite(at.time_since_epoch().count()));
  }
  /// None: it has ended. Else ctx is or became done first, and this is its err().
  std::error_code wait(const Context& ctx) const { return detail::task_wait(need("wait"), ctx); }

  bool done() const { return detail::task_done(need("done")); }
  /// From any thread, any number of times. Does not wait.
  void cancel() const { detail::task_cancel(need("cancel")); }
  /// Its goroutine; 0 until it runs.
  std::uint64_t id() const { return detail::task_goid(need("id")); }

  /// False: empty.
  explicit operator bool() const { return t_ != nullptr; }
  detail::TaskHead* head() const { return t_; }

 private:
  detail::TaskHead* need(const char* what) const {
    if (!t_) detail::panic_empty_task(what);
    return t_;
  }

  detail::TaskHead* t_ = nullptr;
};

/// Starts `f(args...)` as a goroutine with a result. Arguments are decay-copied, as go() does.
/// Cost: that of go(), and one allocation. Errors: as go().
/// Go:   nothing like it; a goroutine that sends its result on a channel.
template <class F, class... Args>
  requires(!std::is_same_v<std::remove_cvref_t<F>, Spawn>)
[[nodiscard, gnu::always_inline]] inline auto spawn(F&& f, Args&&... args) {
  return detail::start_task(nullptr, nullptr, detail::here(), std::forward<F>(f), std::forward<Args>(args)...);
}
template <class F, class... Args>
[[nodiscard, gnu::always_inline]] inline auto spawn(const Spawn& attributes, F&& f, Args&&... args) {
  return detail::start_task(&attributes, nullptr, detail::here(), std::forward<F>(f), std::forward<Args>(args)...);
}

/// The context of the innermost task or scope that the caller runs in: done when that is cancelled or its time is over. Made when it
/// is first asked for. Outside of all: background().
Context current_context();

/// Whether the next wait of the caller would be cancelled. For loops that compute. False outside tasks and scopes.
bool canceled() noexcept;
/// Throws Canceled if it would.
void throw_if_canceled();

// ---- scopes --------------------------------------------------------------------------------------------------------

/// What a scope starts with. All members have defaults.
struct ScopeOptions {
  Clock::duration timeout = Clock::duration::max();  ///< cancelled when it has passed; an outer scope's holds as well
  std::optional<Time> deadline = {};                 ///< the same as a point in time
  Context context = {};          ///< cancelled when this is done; its values are those of current_context()
  bool throw_on_cancel = false;  ///< waits that have a result throw Canceled as well; also in the scope's children and scopes
};

namespace detail {
ScopeHead* scope_make(const ScopeOptions& o);
void scope_cancel(ScopeHead* s);
bool scope_canceled(const ScopeHead* s);
Context scope_context(ScopeHead* s);
Scope& scope_handle(ScopeHead* s);
void scope_body_canceled(ScopeHead* s);
void scope_failed(ScopeHead* s, std::exception_ptr e);
/// Waits for the children, then throws what there is to throw. `valued`: the caller has no result if the body was cancelled.
void scope_close(ScopeHead* s, bool valued);
void scope_abandon(ScopeHead* s) noexcept;
void scope_unref(ScopeHead* s) noexcept;

class ScopeFrame {
 public:
  explicit ScopeFrame(const ScopeOptions& o) : s_(scope_make(o)) {}
  ~ScopeFrame() {
    if (!closed_) scope_abandon(s_);
    scope_unref(s_);
  }
  ScopeFrame(const ScopeFrame&) = delete;
  ScopeFrame& operator=(const ScopeFrame&) = delete;
  ScopeHead* head() const { return s_; }
  void close(bool valued) {
    closed_ = true;
    scope_close(s_, valued);
  }

 private:
  ScopeHead* s_;
  bool closed_ = false;
};

}  // namespace detail

/// The children of one scope(). Given to its function; lives as long as that and its children run, not on anybody's stack.
/// Threads: any, also the children.
class Scope {
 public:
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  /// As weft::spawn; the task is a child of the scope. In a cancelled scope it starts cancelled.
  /// Errors: panics if the scope has ended.
  template <class F, class... Args>
    requires(!std::is_same_v<std::remove_cvref_t<F>, Spawn>)
  [[gnu::always_inline]] inline auto spawn(F&& f, Args&&... args) {
    return detail::start_task(nullptr, head_, detail::here(), std::forward<F>(f), std::forward<Args>(args)...);
  }
  template <class F, class... Args>
  [[gnu::always_inline]] inline auto spawn(const Spawn& attributes, F&& f, Args&&... args) {
    return detail::start_task(&attributes, head_, detail::here(), std::forward<F>(f), std::forward<Args>(args)...);
  }

  /// Cancels all children, present and future, and the waits of the scope's function. Any number of times; does not wait.
  void cancel() { detail::scope_cancel(head_); }
  bool canceled() const { return detail::scope_canceled(head_); }
  /// What current_context() is in the scope's function.
  Context context() const { return detail::scope_context(head_); }

 private:
  friend struct detail::ScopeHead;
  explicit Scope(detail::ScopeHead* head) : head_(head) {}
  detail::ScopeHead* head_;
};

/// Calls `f(scope)`, or f(), waits until all children of the scope have ended, and returns what f returned. No child outlives it,
/// however f ends: by return, exception, goexit or the runtime's stop.
/// Errors: the first failure, of f or a child, cancels all others and is rethrown when they have ended; suppressed() gives those that
///         came later. weft::Canceled is no failure. If f or a child was cut short by the scope's deadline or context:
///         std::system_error(Errc::deadline_exceeded, or the context's error). If f was cut short from outside: Canceled. After s.cancel() it
///         returns as if f had; if there is no result to return: Canceled.
/// Threads: any; on a plain thread nothing ends the waits of f itself.
/// Cost:   one allocation. Waits in it cost what they cost outside.
/// Go:     errgroup, without its leaks.
template <class F>
auto scope(const ScopeOptions& options, F&& f) {
  auto call = [&](detail::ScopeHead* head) -> decltype(auto) {
    if constexpr (std::is_invocable_v<F&, Scope&>)
      return std::invoke(f, detail::scope_handle(head));
    else
      return std::invoke(f);
  };
  using R = decltype(call(nullptr));
  detail::ScopeFrame frame(options);
  auto guarded = [&](auto&& body) {
    try {
      body();
    } catch (const Canceled&) {
      detail::scope_body_canceled(frame.head());
    } catch (...) {
      if (detail::unwinding_now()) throw;
      detail::scope_failed(frame.head(), std::current_exception());
    }
  };
  if constexpr (std::is_void_v<R>) {
    guarded([&] { call(frame.head()); });
    frame.close(false);
  } else {
    std::optional<std::decay_t<R>> result;
    guarded([&] { result.emplace(call(frame.head())); });
    frame.close(!result);
    return std::move(*result);
  }
}
template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, ScopeOptions>)
auto scope(F&& f) {
  return weft::scope(ScopeOptions{}, std::forward<F>(f));
}

/// The failures that came after `e` in the scope that threw it, in order; by default those of the exception being handled.
std::vector<std::exception_ptr> suppressed(const std::exception_ptr& e = std::current_exception());

namespace detail {
ScopeHead* shield_begin(std::int64_t budget_ns);  // null: outside tasks and scopes there is nothing to hide
void shield_end(ScopeHead* s) noexcept;
}  // namespace detail

/// Hides cancellation from the calling goroutine, and from the scopes that it opens meanwhile, while one lives. With a budget: for that
/// long at most, from when cancellation comes; after it the overrun is logged and cancellation gets through. Nests.
class [[nodiscard]] Shield {
 public:
  Shield() : s_(detail::shield_begin(detail::kForever)) {}
  template <class Rep, class Period>
  explicit Shield(std::chrono::duration<Rep, Period> budget) : s_(detail::shield_begin(detail::to_ns(budget))) {}
  ~Shield() {
    if (s_) detail::shield_end(s_);
  }
  Shield(const Shield&) = delete;
  Shield& operator=(const Shield&) = delete;

 private:
  detail::ScopeHead* s_;
};

/// `f()` under a Shield.
template <class F>
decltype(auto) shield(F&& f) {
  Shield s;
  return std::invoke(std::forward<F>(f));
}
template <class Rep, class Period, class F>
decltype(auto) shield(std::chrono::duration<Rep, Period> budget, F&& f) {
  Shield s(budget);
  return std::invoke(std::forward<F>(f));
}

}  // namespace weft
