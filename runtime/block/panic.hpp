// Panics of the runtime, and what is known about panics under way.
#pragma once

#include <weft/panic.hpp>

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace weft::rt {

/// Throws Panic with Go's text; Panic::is_runtime_error() is true.
[[noreturn]] void panic_runtime(const char* message);

/// What an exception says.
struct Described {
  std::string text;
  bool is_panic = false;
  bool is_token = false;  // goexit's, which met a noexcept function
};
/// Runs user code (what()), which may use the runtime.
Described describe_exception(const std::exception_ptr& e);

/// Of a Panic; null: it is something else.
std::shared_ptr<const detail::PanicState> panic_state_in(const std::exception_ptr& e);
/// The same, made for what is something else.
std::shared_ptr<const detail::PanicState> panic_state_for(const std::exception_ptr& e);

/// The message of a detail::PanicState as Panic::what() gives it, for reports.
struct PanicsUnderWay {
  std::vector<std::string> messages;  ///< oldest first; the one that the reporter was called for is the last
  bool defer_failed = false;          ///< a Defer threw while another exception unwound
};

/// Panics that goroutine `id` has raised and that are neither caught nor forgotten: exceptions that are unwinding are
/// invisible to the language, so each panic is remembered when it is raised. Other exceptions are not known.
PanicsUnderWay panics_under_way(std::uint64_t id);

}  // namespace weft::rt
