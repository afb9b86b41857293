// How a callable travels into the runtime: bytes plus a table of what can be done with them.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

namespace weft::detail {

/// `run` calls the closure at `self` and destroys it, also when unwinding; `destroy` drops one that never ran.
struct ClosureOps {
  void (*run)(void* self);
  void (*destroy)(void* self);
  std::size_t size;
  std::size_t align;
};

/// f and its arguments, decay-copied as std::thread does. Calling it uses them up; again() passes them as lvalues, so that it
/// may run as often as one likes.
template <class F, class... Args>
struct Bound {
  F f;
  [[no_unique_address]] std::tuple<Args...> args;

  void operator()() {
    std::apply([this](Args&... a) { (void)std::invoke(std::move(f), std::move(a)...); }, args);
  }
  /// operator() with its result.
  decltype(auto) give() {
    return std::apply([this](Args&... a) -> decltype(auto) { return std::invoke(std::move(f), std::move(a)...); }, args);
  }
  void again() {
    std::apply([this](Args&... a) { (void)std::invoke(f, a...); }, args);
  }
};

template <class F>
struct Bound<F> {
  F f;
  void operator()() { (void)std::invoke(std::move(f)); }
  decltype(auto) give() { return std::invoke(std::move(f)); }
  void again() { (void)std::invoke(f); }
};

template <class F, class... Args>
auto bind(F&& f, Args&&... args) {
  if constexpr (sizeof...(Args) == 0)
    return Bound<std::decay_t<F>>{std::forward<F>(f)};
  else
    return Bound<std::decay_t<F>, std::decay_t<Args>...>{std::forward<F>(f), {std::forward<Args>(args)...}};
}

template <class C>
inline constexpr ClosureOps kClosureOps{
    [](void* self) {
      C* c = static_cast<C*>(self);
      struct Drop {
        C* c;
        ~Drop() { std::destroy_at(c); }
      } drop{c};
      (*c)();
    },
    [](void* self) { std::destroy_at(static_cast<C*>(self)); },
    sizeof(C),
    alignof(C),
};

/// An empty std::function, a null function pointer or member pointer: Go's nil func value.
template <class F>
bool is_nil_callable(const F& f) {
  if constexpr (std::is_function_v<F>)
    return false;
  else if constexpr (std::is_pointer_v<F> || std::is_member_pointer_v<F>)
    return f == nullptr;
  else if constexpr (requires { static_cast<bool>(f == nullptr); })
    return f == nullptr;
  else
    return false;
}

}  // namespace weft::detail
