/// weft/context.hpp: cancellation, deadlines and values that travel down a call tree. Go's context package.
///
/// Order:   what happened before a cancel happens before whatever notices it (done(), err(), a wait that it ends).
/// Waits:   every wait has a form with a Context: c.recv(ctx), mu.lock(ctx), sleep_for(ctx, d) ... A context that is done already
///          fails them at once, also where they need not wait; one that becomes done while they wait ends them. An operation that
///          has happened keeps its result.
/// Cost:    no goroutine and no channel per context: the channel of done() is made when it is asked for. Cancelling is linear
///          in the number of descendants.
/// Threads: any. Deadlines need a running runtime.
#pragma once

#include <weft/chan.hpp>
#include <weft/detail/value.hpp>
#include <weft/error.hpp>
#include <weft/go.hpp>
#include <weft/time.hpp>

#include <atomic>
#include <chrono>
#include <compare>
#include <concepts>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

namespace weft {

class Context;
class CustomContext;

namespace detail {

/// What handles see of a context; the rest is the runtime's.
struct ContextHead {
  std::atomic<std::uint32_t> refs{1};
  const bool never_done;  // for good, and it is known without asking others: background(), todo()
  explicit ContextHead(bool root) : never_done(root) {}
};

/// A key's identity is its address.
struct ContextKeyBase {
  const char* name;
  constexpr explicit ContextKeyBase(const char* n) : name(n) {}
  ContextKeyBase(const ContextKeyBase&) = delete;
  ContextKeyBase& operator=(const ContextKeyBase&) = delete;
};

void context_free(ContextHead* h);
const RecvChan<void>& context_done(const ContextHead* h);
std::error_code context_err(const ContextHead* h);
std::exception_ptr context_cause(const ContextHead* h);
std::optional<Time> context_deadline(const ContextHead* h);
const void* context_value(const ContextHead* h, const ContextKeyBase& key);
std::string context_text(const ContextHead* h);
ContextHead* context_custom(std::shared_ptr<CustomContext> user);
/// All take a parent that may be null (a Panic) and give a counted head.
ContextHead* context_with_cancel(ContextHead* parent);
ContextHead* context_with_deadline(ContextHead* parent, std::int64_t deadline, std::exception_ptr cause);
ContextHead* context_with_value(ContextHead* parent, const ContextKeyBase& key, std::shared_ptr<const void> value,
                                std::string_view text);
ContextHead* context_without_cancel(ContextHead* parent);
/// A context made by context_with_cancel or _with_deadline; `cause` may be null.
void context_cancel(ContextHead* h, std::exception_ptr cause);
void context_cancel_with(ContextHead* h, const std::error_code& e);  // the same; does not wait for who cancels meanwhile
void context_cancel_handles(ContextHead* h, int by);  // at zero: cancelled unless detached
void context_detach(ContextHead* h);
[[noreturn]] void panic_nil_context();
[[noreturn]] void panic_nil_cancel();

class ContextRef {
 public:
  ContextRef() = default;
  explicit ContextRef(ContextHead* adopted) : head_(adopted) {}
  ContextRef(const ContextRef& o) : head_(o.head_) {
    if (head_) head_->refs.fetch_add(1, std::memory_order_relaxed);
  }
  ContextRef(ContextRef&& o) noexcept : head_(std::exchange(o.head_, nullptr)) {}
  ContextRef& operator=(ContextRef o) noexcept {
    std::swap(head_, o.head_);
    return *this;
  }
  ~ContextRef() {
    // [context-ref] the last release sees what every earlier holder did.
    if (head_ && head_->refs.fetch_sub(1, std::memory_order_acq_rel) == 1) context_free(head_);
  }
  ContextHead* head() const { return head_; }

 private:
  ContextHead* head_ = nullptr;
};

/// Whoever holds one may cancel.
class CancelRef {
 public:
  CancelRef() = default;
  explicit CancelRef(ContextRef r) : ref_(std::move(r)) {
    if (ref_.head()) context_cancel_handles(ref_.head(), +1);
  }
  CancelRef(const CancelRef& o) : CancelRef(ContextRef(o.ref_)) {}
  CancelRef(CancelRef&& o) noexcept : ref_(std::move(o.ref_)) {}
  CancelRef& operator=(CancelRef o) noexcept {
    std::swap(ref_, o.ref_);
    return *this;
  }
  ~CancelRef() {
    if (ref_.head()) context_cancel_handles(ref_.head(), -1);
  }
  ContextHead* head() const { return ref_.head(); }

 private:
  ContextRef ref_;
};

/// An exception_ptr as it is, an error code as a std::system_error, any other object as the exception thrown.
template <class E>
std::exception_ptr as_cause(E&& e) {
  using T = std::decay_t<E>;
  if constexpr (std::is_same_v<T, std::nullptr_t>)
    return nullptr;
  else if constexpr (std::is_same_v<T, std::exception_ptr>)
    return std::forward<E>(e);
  else if constexpr (std::is_convertible_v<E, std::error_code> || std::is_error_code_enum_v<T>)
    return std::make_exception_ptr(std::system_error(std::error_code(e)));
  else
    return std::make_exception_ptr(std::forward<E>(e));
}

}  // namespace detail

/// A typed key; its address is its identity, so make it static.
template <class T>
class ContextKey : public detail::ContextKeyBase {
 public:
  constexpr explicit ContextKey(const char* name) : ContextKeyBase(name) {}
};

/// A counted handle; copy it, capture it by value. A default-constructed one is Go's nil Context: making a child of it
/// panics, as does calling it.
class Context {
 public:
  Context() = default;
  Context(std::nullptr_t) {}  // NOLINT: as Go's nil
  explicit Context(detail::ContextRef r) : ref_(std::move(r)) {}
  /// A context of the user's own kind.
  template <class C>
    requires std::derived_from<C, CustomContext>
  Context(std::shared_ptr<C> user) : ref_(detail::context_custom(std::move(user))) {}  // NOLINT: Go's interface value

  /// Closed when the context is done. Nil if it never can be. Always the same channel; lives as long as the context.
  const RecvChan<void>& done() const { return detail::context_done(need()); }
  /// None, Errc::canceled or Errc::deadline_exceeded. Never goes back; set exactly when done() is closed.
  std::error_code err() const { return detail::context_err(need()); }
  /// Why: what the first cancel in the line was given, else a std::system_error of err(). Null while not done.
  std::exception_ptr cause() const { return detail::context_cause(need()); }
  std::optional<Time> deadline() const { return detail::context_deadline(need()); }
  /// The nearest value with this key, or null. Valid while this context lives. O(depth).
  template <class T>
  const T* value(const ContextKey<T>& key) const {
    return static_cast<const T*>(detail::context_value(need(), key));
  }

  /// False for nil.
  explicit operator bool() const { return ref_.head() != nullptr; }
  bool operator==(const Context& o) const { return ref_.head() == o.ref_.head(); }
  std::strong_ordering operator<=>(const Context& o) const {
    return std::compare_three_way{}(static_cast<const void*>(ref_.head()), static_cast<const void*>(o.ref_.head()));
  }

  detail::ContextHead* head() const { return ref_.head(); }

 private:
  detail::ContextHead* need() const {
    if (!ref_.head()) detail::panic_nil_context();
    return ref_.head();
  }

  detail::ContextRef ref_;
};

template <>
struct is_relocatable<Context> : std::true_type {};

/// "context.Background.WithCancel", as Go prints it.
inline std::string to_string(const Context& ctx) { return ctx ? detail::context_text(ctx.head()) : "nil"; }

/// A context of the user's own kind, to be a parent: Context{std::make_shared<Mine>()}. What it does not override it takes from
/// the context that it was made with. One that overrides done() costs each cancellable child a goroutine that watches it,
/// unless it offers after_func. All members may be called from any goroutine at any time; done() once, when it is wrapped.
class CustomContext {
 public:
  virtual ~CustomContext() = default;
  CustomContext(const CustomContext&) = delete;
  CustomContext& operator=(const CustomContext&) = delete;

  virtual RecvChan<void> done() const { return inner_.done(); }
  virtual std::error_code err() const { return inner_.err(); }
  virtual std::exception_ptr cause() const;
  virtual std::optional<Time> deadline() const { return inner_.deadline(); }
  virtual const void* value(const detail::ContextKeyBase& key) const { return detail::context_value(inner_.head(), key); }
  /// Registers f, to be called once in any goroutine or thread when the context is done; gives what takes it back (true: f
  /// will not be called). Nullopt: not offered.
  virtual std::optional<std::function<bool()>> after_func(std::function<void()>) const { return std::nullopt; }

  const Context& inner() const { return inner_; }

 protected:
  CustomContext();  // on background()
  explicit CustomContext(Context inner) : inner_(std::move(inner)) {
    if (!inner_) detail::panic_nil_context();
  }

 private:
  Context inner_;
};

/// Cancels its context. Nullable, copyable, callable from any thread and any number of times: the first one counts.
/// Returns when all descendants are done. Dropping the last copy cancels as well, with a cause that says so, unless detach() was
/// called on one of them. Errors: calling an empty one panics.
class CancelFunc {
 public:
  CancelFunc() = default;
  CancelFunc(std::nullptr_t) {}  // NOLINT
  explicit CancelFunc(detail::CancelRef r) : ref_(std::move(r)) {}
  void operator()() const {
    if (!ref_.head()) detail::panic_nil_cancel();
    detail::context_cancel(ref_.head(), nullptr);
  }
  /// Dropping the last copy changes nothing from here on. Go: `ctx, _ := ...`. The context ends with its deadline, its parent
  /// or its last handle; a function registered with after_func waits for one of the first two.
  void detach() const {
    if (ref_.head()) detail::context_detach(ref_.head());
  }
  explicit operator bool() const { return ref_.head() != nullptr; }

 private:
  detail::CancelRef ref_;
};

/// The same with a cause: an exception_ptr, an error code or any exception object. A null one means the default.
class CancelCauseFunc {
 public:
  CancelCauseFunc() = default;
  CancelCauseFunc(std::nullptr_t) {}  // NOLINT
  explicit CancelCauseFunc(detail::CancelRef r) : ref_(std::move(r)) {}
  template <class E = std::nullptr_t>
  void operator()(E&& cause = nullptr) const {
    if (!ref_.head()) detail::panic_nil_cancel();
    detail::context_cancel(ref_.head(), detail::as_cause(std::forward<E>(cause)));
  }
  void detach() const {
    if (ref_.head()) detail::context_detach(ref_.head());
  }
  explicit operator bool() const { return ref_.head() != nullptr; }

 private:
  detail::CancelRef ref_;
};

/// For structured bindings.
struct CancelContext {
  Context ctx;
  CancelFunc cancel;
};
struct CancelCauseContext {
  Context ctx;
  CancelCauseFunc cancel;
};

/// Never done, no values, no deadline.
[[gnu::const]] const Context& background();
/// The same for where it is not clear yet which context to use.
[[gnu::const]] const Context& todo();

namespace detail {
template <class R, class F>
R cancel_context(ContextHead* adopted) {
  ContextRef r(adopted);
  return R{Context(r), F(CancelRef(r))};
}
}  // namespace detail

/// A child that is done when `cancel` is called or the parent is done. Errors: a nil parent panics, here and below.
[[nodiscard]] inline CancelContext with_cancel(const Context& parent) {
  return detail::cancel_context<CancelContext, CancelFunc>(detail::context_with_cancel(parent.head()));
}
[[nodiscard]] inline CancelCauseContext with_cancel_cause(const Context& parent) {
  return detail::cancel_context<CancelCauseContext, CancelCauseFunc>(detail::context_with_cancel(parent.head()));
}
/// Done at `t` as well, with Errc::deadline_exceeded; the parent's deadline holds if it is earlier.
[[nodiscard]] inline CancelContext with_deadline(const Context& parent, Time t) {
  return detail::cancel_context<CancelContext, CancelFunc>(
      detail::context_with_deadline(parent.head(), t.time_since_epoch().count(), nullptr));
}
template <class Rep, class Period>
[[nodiscard]] CancelContext with_timeout(const Context& parent, std::chrono::duration<Rep, Period> d) {
  return detail::cancel_context<CancelContext, CancelFunc>(
      detail::context_with_deadline(parent.head(), detail::deadline_after(detail::to_ns(d)), nullptr));
}
/// The cause applies if the deadline passes; cancel() gives the default one.
template <class E>
[[nodiscard]] CancelContext with_deadline_cause(const Context& parent, Time t, E&& cause) {
  return detail::cancel_context<CancelContext, CancelFunc>(detail::context_with_deadline(
      parent.head(), t.time_since_epoch().count(), detail::as_cause(std::forward<E>(cause))));
}
template <class Rep, class Period, class E>
[[nodiscard]] CancelContext with_timeout_cause(const Context& parent, std::chrono::duration<Rep, Period> d, E&& cause) {
  return detail::cancel_context<CancelContext, CancelFunc>(detail::context_with_deadline(
      parent.head(), detail::deadline_after(detail::to_ns(d)), detail::as_cause(std::forward<E>(cause))));
}

/// A child with a value. Two allocations.
template <class T, class V>
  requires std::constructible_from<T, V>
[[nodiscard]] Context with_value(const Context& parent, const ContextKey<T>& key, V&& v) {
  auto held = detail::make_shared_value<const T>(std::forward<V>(v));
  std::string_view text;
  if constexpr (std::is_convertible_v<const T&, std::string_view>) text = *held;
  return Context(detail::ContextRef(detail::context_with_value(parent.head(), key, std::move(held), text)));
}

/// A child with the parent's values that is never done and has no deadline.
[[nodiscard]] inline Context without_cancel(const Context& parent) {
  return Context(detail::ContextRef(detail::context_without_cancel(parent.head())));
}

// ---- functions to run when it is done ------------------------------------------------------------------------------

namespace detail {

/// Counted. The registration holds a reference until it has fired or was stopped.
struct ContextFunc;
/// Room for the closure at `storage`; context_func_start says that it is there.
ContextFunc* context_func_make(ContextHead* ctx, const ClosureOps* ops, void** storage, const void* site);
void context_func_start(ContextFunc* f);
bool context_func_stop(ContextFunc* f);
void context_func_ref(ContextFunc* f);
void context_func_unref(ContextFunc* f);

class ContextFuncRef {
 public:
  ContextFuncRef() = default;
  explicit ContextFuncRef(ContextFunc* adopted) : f_(adopted) {}
  ContextFuncRef(const ContextFuncRef& o) : f_(o.f_) {
    if (f_) context_func_ref(f_);
  }
  ContextFuncRef(ContextFuncRef&& o) noexcept : f_(std::exchange(o.f_, nullptr)) {}
  ContextFuncRef& operator=(ContextFuncRef o) noexcept {
    std::swap(f_, o.f_);
    return *this;
  }
  ~ContextFuncRef() {
    if (f_) context_func_unref(f_);
  }
  ContextFunc* get() const { return f_; }

 private:
  ContextFunc* f_ = nullptr;
};

}  // namespace detail

/// What after_func(ctx, f) gives: stop() is true if it has taken f back, which will not run then; it does not wait for one that
/// has begun. Nullable, copyable; dropping it changes nothing.
class StopFunc {
 public:
  StopFunc() = default;
  explicit StopFunc(detail::ContextFuncRef f) : f_(std::move(f)) {}
  bool operator()() const { return f_.get() && detail::context_func_stop(f_.get()); }
  explicit operator bool() const { return f_.get() != nullptr; }

 private:
  detail::ContextFuncRef f_;
};

/// Runs `f(args...)` in a goroutine of its own when ctx is done, at once if it is. Registrations are independent.
template <class F, class... Args>
[[gnu::always_inline]] inline StopFunc after_func(const Context& ctx, F&& f, Args&&... args) {
  const void* site = detail::here();
  if (detail::is_nil_callable(f)) detail::fatal_nil_func();
  auto c = detail::bind(std::forward<F>(f), std::forward<Args>(args)...);
  using Closure = decltype(c);
  void* storage;
  detail::ContextFuncRef r(detail::context_func_make(ctx.head(), &detail::kClosureOps<Closure>, &storage, site));
  ::new (storage) Closure(std::move(c));
  detail::context_func_start(r.get());
  return StopFunc(std::move(r));
}

// ---- waits ---------------------------------------------------------------------------------------------------------

namespace detail {
std::error_code sleep_until_ctx(std::int64_t deadline, const Context& ctx);
}

/// None: the time has passed. Else ctx was done first, and this is its err().
template <class Rep, class Period>
std::error_code sleep_for(const Context& ctx, std::chrono::duration<Rep, Period> d) {
  return detail::sleep_until_ctx(detail::deadline_after(detail::to_ns(d)), ctx);
}
inline std::error_code sleep_until(const Context& ctx, Time t) {
  return detail::sleep_until_ctx(t.time_since_epoch().count(), ctx);
}

}  // namespace weft

template <>
struct std::hash<weft::Context> {
  std::size_t operator()(const weft::Context& c) const noexcept { return std::hash<const void*>{}(c.head()); }
};
