/// weft/select.hpp: waiting for the first of several channel operations.
///
/// Exactly one case runs: chosen uniformly among those that are ready, or the first ready in order with `prioritized`.
/// Without a ready case select parks; `otherwise` makes it return instead; `timeout` bounds the wait. A ready case
/// beats a timeout of zero. A nil channel and a case that is off are never ready.
/// Lifetime: a case refers to its channel and operands; build it inside the call to select.
#pragma once

#include <weft/chan.hpp>
#include <weft/context.hpp>
#include <weft/detail/value.hpp>
#include <weft/fd.hpp>
#include <weft/task.hpp>

#include <array>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

namespace detail {

enum class CaseKind : std::uint8_t { Off, Recv, Send, Timeout, Fd, Default };

struct SelectCase {
  CaseKind kind = CaseKind::Off;
  bool ok = false;  // of a receive: a value came, not the close
  Io io = Io::Read;
  int fd = -1;
  ChanHead* chan = nullptr;
  void* elem = nullptr;
  std::int64_t deadline = kForever;
};

/// The index of the case that ran. Panics if a chosen send finds its channel closed.
int select_go(SelectCase* cases, int n, bool prioritized);

struct NoHandler {
  void operator()() const {}
};

template <class H, class T>
void call_recv(H& h, std::optional<T>&& v) {
  if constexpr (std::is_invocable_v<H&, std::optional<T>&&>)
    (void)h(std::move(v));
  else
    (void)h();
}

template <class Derived>
struct CaseBase {
  bool on = true;
  /// Off: as a nil channel.
  Derived&& when(bool enabled) && {
    on = enabled;
    return static_cast<Derived&&>(*this);
  }
};

template <class E, bool kVoid, class H>
struct RecvCase : CaseBase<RecvCase<E, kVoid, H>> {
  ChanHead* head;
  H handler;
  Cell<E> cell;
  RecvCase(ChanHead* c, H h) : head(c), handler(std::move(h)) {}
  void fill(SelectCase& s) { s = {.kind = CaseKind::Recv, .chan = head, .elem = &cell}; }
  void finish(const SelectCase& s, bool chosen) {
    if (!chosen) return;
    if constexpr (kVoid) {
      if constexpr (std::is_invocable_v<H&, bool>)
        (void)handler(s.ok);
      else
        (void)handler();
    } else {
      call_recv(handler, s.ok ? std::optional<E>(cell.take()) : std::optional<E>());
    }
  }
};

template <class E, class V, class H>
struct SendCase : CaseBase<SendCase<E, V, H>> {
  // V: const E& (copied), E&& (moved if chosen), or something E is made of.
  static constexpr bool kByAddress = std::is_same_v<std::remove_cvref_t<V>, E> && std::is_trivially_copyable_v<E> && !kBoxed<E>;
  static constexpr bool kGiveBack = std::is_same_v<V, E&&> && !kByAddress;
  ChanHead* head;
  std::remove_reference_t<V>* value;
  H handler;
  Cell<E> cell;
  bool full = false;
  SendCase(ChanHead* c, V v, H h) : head(c), value(std::addressof(v)), handler(std::move(h)) {}
  SendCase(SendCase&& o) : CaseBase<SendCase>(o), head(o.head), value(o.value), handler(std::move(o.handler)) {}
  ~SendCase() {
    if (full) cell.drop();
  }
  void fill(SelectCase& s) {
    s = {.kind = CaseKind::Send, .chan = head};
    if constexpr (kByAddress) {
      s.elem = const_cast<std::remove_const_t<E>*>(value);
    } else {
      if (!head) return;
      cell.put(static_cast<V>(*value));
      full = true;
      s.elem = &cell;
    }
  }
  void finish(const SelectCase&, bool chosen) {
    if (chosen) {
      full = false;
      (void)handler();
    } else if constexpr (kGiveBack) {
      if (!full) return;
      if constexpr (std::is_move_assignable_v<E>) {
        *value = std::move(cell.get());
      } else {
        std::destroy_at(value);
        ::new (static_cast<void*>(value)) E(std::move(cell.get()));
      }
    }
  }
};

template <class H>
struct PlainCase : CaseBase<PlainCase<H>> {
  SelectCase what;
  H handler;
  PlainCase(const SelectCase& w, H h) : what(w), handler(std::move(h)) {}
  void fill(SelectCase& s) { s = what; }
  void finish(const SelectCase&, bool chosen) {
    if (chosen) (void)handler();
  }
};

template <class C>
concept SelectableCase = requires(C& c, SelectCase& s) {
  c.fill(s);
  c.finish(s, true);
};

template <class H>
auto ready_when_closed(const RecvChan<void>& c, H&& h) {
  static constinit Unit unit;
  return PlainCase<std::decay_t<H>>({.kind = CaseKind::Recv, .chan = c.head(), .elem = &unit}, std::forward<H>(h));
}

}  // namespace detail

/// select(prioritized, ...): the first ready case in order, not a uniform choice.
struct prioritized_t {
  explicit prioritized_t() = default;
};
inline constexpr prioritized_t prioritized{};

/// The handler takes std::optional<T> (nullopt: closed and drained) or nothing. For Chan<void>: a bool or nothing.
template <class T, bool S, class H = detail::NoHandler>
  requires(!std::is_lvalue_reference_v<H> ||
           !(std::is_same_v<std::remove_cvref_t<H>, std::conditional_t<std::is_void_v<T>, bool, T>> ||
             std::is_same_v<std::remove_cvref_t<H>, std::optional<T>>))
auto recv(const BasicChan<T, S, true>& c, H&& h = {}) {
  using E = std::conditional_t<std::is_void_v<T>, Unit, T>;
  return detail::RecvCase<E, std::is_void_v<T>, std::decay_t<H>>(c.head(), std::forward<H>(h));
}
/// Out-parameter forms: an lvalue of exactly T or std::optional<T> is never taken for a handler.
template <class T, bool S>
  requires(!std::is_void_v<T>)
auto recv(const BasicChan<T, S, true>& c, std::optional<T>& out) {
  auto h = [&out](std::optional<T>&& v) {
    if (v)
      out.emplace(std::move(*v));
    else
      out.reset();
  };
  return detail::RecvCase<T, false, decltype(h)>(c.head(), h);
}
template <class T, bool S>
  requires(!std::is_void_v<T>)
auto recv(const BasicChan<T, S, true>& c, T& out) {
  auto h = [&out](std::optional<T>&& v) { out = v ? std::move(*v) : T{}; };
  return detail::RecvCase<T, false, decltype(h)>(c.head(), h);
}
template <class T, bool S>
  requires(!std::is_void_v<T>)
auto recv(const BasicChan<T, S, true>& c, T& out, bool& ok) {
  auto h = [&out, &ok](std::optional<T>&& v) {
    ok = v.has_value();
    out = v ? std::move(*v) : T{};
  };
  return detail::RecvCase<T, false, decltype(h)>(c.head(), h);
}
template <class T, bool S>
  requires(std::is_void_v<T>)
auto recv(const BasicChan<T, S, true>& c, bool& ok) {
  auto h = [&ok](bool v) { ok = v; };
  return detail::RecvCase<Unit, true, decltype(h)>(c.head(), h);
}

/// An lvalue is copied; an rvalue of type T is moved from only if this case is chosen.
template <class T, bool R, class V, class H = detail::NoHandler>
  requires(!std::is_void_v<T> && std::convertible_to<V, T>)
auto send(const BasicChan<T, true, R>& c, V&& v, H&& h = {}) {
  return detail::SendCase<T, V&&, std::decay_t<H>>(c.head(), std::forward<V>(v), std::forward<H>(h));
}
template <class T, bool R, class H = detail::NoHandler>
  requires(std::is_void_v<T>)
auto send(const BasicChan<T, true, R>& c, H&& h = {}) {
  static constinit Unit unit;
  return detail::PlainCase<std::decay_t<H>>(
      {.kind = detail::CaseKind::Send, .chan = c.head(), .elem = &unit}, std::forward<H>(h));
}

/// Chosen when the time has come and nothing else was ready. No channel, no allocation.
template <class Rep, class Period, class H = detail::NoHandler>
auto timeout(std::chrono::duration<Rep, Period> d, H&& h = {}) {
  return detail::PlainCase<std::decay_t<H>>(
      {.kind = detail::CaseKind::Timeout, .deadline = detail::deadline_after(detail::to_ns(d))},
      std::forward<H>(h));
}
template <class H = detail::NoHandler>
auto timeout(Time t, H&& h = {}) {
  return detail::PlainCase<std::decay_t<H>>(
      {.kind = detail::CaseKind::Timeout, .deadline = t.time_since_epoch().count()}, std::forward<H>(h));
}

/// The descriptor is readable or writable, as wait_fd.
template <class H = detail::NoHandler>
auto ready(int fd, Io dir, H&& h = {}) {
  return detail::PlainCase<std::decay_t<H>>({.kind = detail::CaseKind::Fd, .io = dir, .fd = fd},
                                            std::forward<H>(h));
}

/// The task has ended, or the context is done. Nothing is taken: get() and err() say more.
template <class R, class H = detail::NoHandler>
auto ready(const Task<R>& task, H&& h = {}) {
  if (!task) detail::panic_empty_task("select");
  return detail::ready_when_closed(detail::task_done_chan(task.head()), std::forward<H>(h));
}
template <class H = detail::NoHandler>
auto ready(const Context& ctx, H&& h = {}) {
  return detail::ready_when_closed(ctx.done(), std::forward<H>(h));
}

/// Go's default: chosen when nothing is ready now.
template <class H = detail::NoHandler>
auto otherwise(H&& h = {}) {
  return detail::PlainCase<std::decay_t<H>>({.kind = detail::CaseKind::Default}, std::forward<H>(h));
}

namespace detail {

template <class Tuple, std::size_t... I>
int select_tuple(bool prioritized, Tuple&& cases, std::index_sequence<I...>) {
  std::array<SelectCase, sizeof...(I)> raw;
  auto fill = [](auto& c, SelectCase& s) {
    if (c.on) c.fill(s);
  };
  (fill(std::get<I>(cases), raw[I]), ...);
  int chosen = -1;
  struct GiveBack {  // also when select_go panics
    Tuple& cases;
    std::array<SelectCase, sizeof...(I)>& raw;
    int& chosen;
    bool done = false;
    void run() {
      done = true;
      ((static_cast<int>(I) == chosen ? void() : std::get<I>(cases).finish(raw[I], false)), ...);
    }
    ~GiveBack() noexcept(false) {
      if (!done) run();
    }
  } give_back{cases, raw, chosen};
  chosen = select_go(raw.data(), static_cast<int>(sizeof...(I)), prioritized);
  give_back.run();
  ((static_cast<int>(I) == chosen ? std::get<I>(cases).finish(raw[I], true) : void()), ...);
  return chosen;
}

}  // namespace detail

/// Runs one case and returns its index. Go: select. Handlers run after the operation, in the caller.
/// Order: C++ leaves the order in which operands are evaluated open; Selector is the ordered form.
template <detail::SelectableCase... Cases>
  requires(sizeof...(Cases) > 0)
int select(Cases&&... cases) {
  return detail::select_tuple(false, std::forward_as_tuple(cases...), std::index_sequence_for<Cases...>{});
}
template <detail::SelectableCase... Cases>
  requires(sizeof...(Cases) > 0)
int select(prioritized_t, Cases&&... cases) {
  return detail::select_tuple(true, std::forward_as_tuple(cases...), std::index_sequence_for<Cases...>{});
}
/// Blocks for ever.
[[noreturn]] void select();

/// select over cases known at run time. Cases are numbered in the order they were added; operands are evaluated then.
/// Owns what send is given. May wait again: receive cases are armed anew, a send that has happened is off.
/// Errors: waiting on more than 65,535 cases panics; try_wait and wait_for count as one case.
class Selector {
 public:
  template <class T, bool S, class... Out>
  Selector& recv(const BasicChan<T, S, true>& c, Out&&... out) {
    using Case = decltype(weft::recv(c, std::forward<Out>(out)...));
    add(std::make_unique<Held<Case>>(c.ref(), weft::recv(c, std::forward<Out>(out)...)));
    return *this;
  }
  template <class T, bool R, class V, class H = detail::NoHandler>
    requires(!std::is_void_v<T> && std::convertible_to<V, T>)
  Selector& send(const BasicChan<T, true, R>& c, V&& v, H&& h = {}) {
    add(std::make_unique<HeldSend<T, std::decay_t<H>>>(c.ref(), T(std::forward<V>(v)), std::forward<H>(h)));
    return *this;
  }
  template <class T, bool R, class H = detail::NoHandler>
    requires(std::is_void_v<T>)
  Selector& send(const BasicChan<T, true, R>& c, H&& h = {}) {
    using Case = decltype(weft::send(c, std::forward<H>(h)));
    add(std::make_unique<Held<Case>>(c.ref(), weft::send(c, std::forward<H>(h))));
    return *this;
  }
  template <class H = detail::NoHandler>
  Selector& ready(int fd, Io dir, H&& h = {}) {
    using Case = decltype(weft::ready(fd, dir, std::forward<H>(h)));
    add(std::make_unique<Held<Case>>(detail::ChanRef{}, weft::ready(fd, dir, std::forward<H>(h))));
    return *this;
  }
  template <class R, class H = detail::NoHandler>
  Selector& ready(const Task<R>& task, H&& h = {}) {
    using Case = decltype(weft::ready(task, std::forward<H>(h)));
    auto c = weft::ready(task, std::forward<H>(h));
    add(std::make_unique<Held<Case>>(detail::task_done_chan(task.head()).ref(), std::move(c)));
    return *this;
  }
  template <class H = detail::NoHandler>
  Selector& ready(const Context& ctx, H&& h = {}) {
    using Case = decltype(weft::ready(ctx, std::forward<H>(h)));
    add(std::make_unique<Held<Case>>(ctx.done().ref(), weft::ready(ctx, std::forward<H>(h))));
    return *this;
  }

  /// Parks until one case has run. With no case: for ever.
  int wait() { return go(detail::SelectCase{}); }
  /// -1: nothing is ready now.
  int try_wait() { return go({.kind = detail::CaseKind::Default}); }
  /// -1: the time ran out.
  template <class Rep, class Period>
  int wait_for(std::chrono::duration<Rep, Period> d) {
    return go({.kind = detail::CaseKind::Timeout, .deadline = detail::deadline_after(detail::to_ns(d))});
  }
  std::size_t size() const { return cases_.size(); }
  void clear() { cases_.clear(); }

 private:
  struct Any : detail::ValueBlock {
    virtual ~Any() = default;
    virtual void fill(detail::SelectCase& s) = 0;
    virtual void finish(const detail::SelectCase& s) = 0;
  };
  template <class Case>
  struct Held final : Any {
    detail::ChanRef keep;
    Case c;
    Held(detail::ChanRef k, Case&& init) : keep(std::move(k)), c(std::move(init)) {}
    void fill(detail::SelectCase& s) override {
      if (c.on) c.fill(s);
    }
    void finish(const detail::SelectCase& s) override { c.finish(s, true); }
  };
  template <class T, class H>
  struct HeldSend final : Any {
    detail::ChanRef keep;
    detail::Cell<T> cell;
    bool full = true;
    H handler;
    template <class F>
    HeldSend(detail::ChanRef k, T v, F&& f) : keep(std::move(k)), handler(std::forward<F>(f)) {
      cell.put(std::move(v));
    }
    ~HeldSend() override {
      if (full) cell.drop();
    }
    void fill(detail::SelectCase& s) override {
      if (full) s = {.kind = detail::CaseKind::Send, .chan = keep.head(), .elem = &cell};
    }
    void finish(const detail::SelectCase&) override {
      full = false;
      (void)handler();
    }
  };

  void add(std::unique_ptr<Any> c) { cases_.push_back(std::move(c)); }
  int go(const detail::SelectCase& last) {
    raw_.assign(cases_.size(), detail::SelectCase{});
    for (std::size_t i = 0; i < cases_.size(); i++) cases_[i]->fill(raw_[i]);
    if (last.kind != detail::CaseKind::Off) raw_.push_back(last);
    const int i = detail::select_go(raw_.data(), static_cast<int>(raw_.size()), false);
    if (i == static_cast<int>(cases_.size())) return -1;
    cases_[static_cast<std::size_t>(i)]->finish(raw_[static_cast<std::size_t>(i)]);
    return i;
  }

  std::vector<std::unique_ptr<Any>> cases_;
  std::vector<detail::SelectCase> raw_;
};

}  // namespace weft
