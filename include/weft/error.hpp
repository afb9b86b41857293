/// weft/error.hpp: the error codes of the runtime.
///
/// Errors speak in three voices that never mix: std::error_code for the world and for limits of time, Panic
/// (panic.hpp) for caller mistakes that Go panics on, fatal (panic.hpp) for what nobody can recover from.
#pragma once

#include <system_error>
#include <type_traits>

namespace weft {
enum class Errc;
}

template <>
struct std::is_error_code_enum<weft::Errc> : std::true_type {};

namespace weft {

enum class Errc {
  canceled = 1,       ///< "context canceled"; equals std::errc::operation_canceled
  deadline_exceeded,  ///< "context deadline exceeded"; equals std::errc::timed_out
  bad_config,         ///< a member of Config or a WEFT_* variable has a value outside its range
  already_running,    ///< one runtime runs at a time
  not_running,        ///< the call needs a running runtime
  refused,            ///< the kernel refused what the runtime cannot start without
};

const std::error_category& error_category() noexcept;
std::error_code make_error_code(Errc e) noexcept;

/// Thrown by a wait that has no result to say it in, when the task or scope that it runs in is cancelled (task.hpp): it ends the
/// task, and is no failure. So it has no base class: `catch (const std::exception&)` does not take it for one. Who catches it to
/// clean up should rethrow it; who swallows it gets it again at the next wait. Only raised in tasks and scopes.
class Canceled {
 public:
  const char* what() const noexcept { return "task canceled"; }
  std::error_code code() const noexcept { return Errc::canceled; }
};

}  // namespace weft
