/// weft/panic.hpp: panics are exceptions, fatal errors are not.
#pragma once

#include <any>
#include <concepts>
#include <cstdint>
#include <exception>
#include <memory>
#include <source_location>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

class Panic;

namespace detail {

struct PanicState {
  std::any value;
  std::string message;
  bool runtime_error = false;
  std::uint64_t raised_by = 0;             // goroutine; 0: a plain thread, or nobody yet
  std::vector<std::uintptr_t> raised_at;   // return addresses, innermost first
};

[[noreturn]] void throw_panic(std::shared_ptr<PanicState> state);
[[noreturn]] void throw_again(const Panic& p);
[[noreturn]] void panic_nil();
struct PanicAccess;
std::string describe_unknown(const std::type_info& type);

template <class T>
std::string describe(const T& v) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>)
    return std::string(std::string_view(v));
  else if constexpr (std::is_base_of_v<std::exception, T>)
    return v.what();
  else if constexpr (std::is_same_v<T, bool>)
    return v ? "true" : "false";
  else if constexpr (std::is_arithmetic_v<T>)
    return std::to_string(v);
  else if constexpr (requires { { v.message() } -> std::convertible_to<std::string>; })
    return v.message();
  else
    return describe_unknown(typeid(T));
}

}  // namespace detail

/// A caller's mistake, or whatever a program chose to panic with. Uncaught it ends the program: the report is made where
/// it was thrown, with the stack intact, and the exit status is 2.
class Panic : public std::exception {
 public:
  /// `original`: what was thrown, if it was something else (Frame::recover()).
  explicit Panic(std::shared_ptr<const detail::PanicState> state, std::exception_ptr original = {})
      : state_(std::move(state)), original_(std::move(original)) {}
  const char* what() const noexcept override { return state_->message.c_str(); }
  /// The value given to panic(), if it was a T; of another exception, the object that was thrown, if it is a T.
  template <class T>
  const T* value() const {
    if (const T* v = std::any_cast<T>(&state_->value)) return v;
    if constexpr (!std::is_same_v<T, Panic> && std::is_object_v<T>) {
      if (original_ && !state_->value.has_value()) {
        try {
          std::rethrow_exception(original_);
        } catch (const T& object) {
          return &object;  // original_ keeps it
        } catch (...) {
        }
      }
    }
    return nullptr;
  }
  /// True for the runtime's own: send on closed channel, negative WaitGroup counter, ...
  bool is_runtime_error() const noexcept { return state_->runtime_error; }
  /// What was thrown, for std::rethrow_exception.
  std::exception_ptr exception() const { return original_ ? original_ : std::make_exception_ptr(*this); }

 private:
  friend struct detail::PanicAccess;
  std::shared_ptr<const detail::PanicState> state_;
  std::exception_ptr original_;
};

/// Throws Panic with `v`, any copyable value. A Panic is thrown again as it is ("[recovered, repanicked]" in reports). Of nullptr and of
/// a null `const char*` it makes the runtime's own "panic called with nil argument", as in Go.
/// Cost:  a walk of the stack for the report, beside the throw: microseconds.
/// Go:    panic(v); recover is `catch (const weft::Panic&)`, or Frame::recover().
template <class T>
[[noreturn]] void panic(T&& v) {
  using V = std::decay_t<T>;
  if constexpr (std::is_same_v<V, Panic>) {
    detail::throw_again(v);
  } else if constexpr (std::is_null_pointer_v<V>) {
    detail::panic_nil();
  } else {
    if constexpr (std::is_pointer_v<std::remove_cvref_t<T>> && std::is_convertible_v<const V&, const char*>)
      if (!v) detail::panic_nil();
    auto state = std::make_shared<detail::PanicState>();
    if constexpr (std::is_convertible_v<const V&, std::string_view>)
      state->value = std::string(std::string_view(v));
    else
      state->value = v;
    state->message = detail::describe(static_cast<const V&>(v));
    detail::throw_panic(std::move(state));
  }
}

/// Ends the process with "fatal error: MESSAGE", the stacks and exit status 2. Nobody can recover from it.
[[noreturn]] void fatal(std::string_view message);

}  // namespace weft
