// Panics of the runtime, and what is known about panics under way.
#pragma once

#include <weft/panic.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace weft::rt {

/// Throws Panic with Go's text; Panic::is_runtime_error() is true.
[[noreturn]] void panic_runtime(const char* message);

/// The message of a detail::PanicState as Panic::what() gives it, for reports.
struct PanicsUnderWay {
  std::vector<std::string> messages;  ///< oldest first; the one that the reporter was called for is the last
  bool defer_failed = false;          ///< a Defer threw while another exception unwound
};

/// Panics that goroutine `id` has raised and that are neither caught nor forgotten: exceptions that are unwinding are
/// invisible to the language, so each panic is remembered when it is raised. Other exceptions are not known.
PanicsUnderWay panics_under_way(std::uint64_t id);

}  // namespace weft::rt
