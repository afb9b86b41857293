/// weft/fd.hpp: waiting for any pollable descriptor.
#pragma once

#include <weft/detail/clock.hpp>

#include <optional>
#include <system_error>

namespace weft {

class Context;  // context.hpp

enum class Io : unsigned char { Read, Write };

/// Parks until `fd` is ready for `dir` (or has an error or hang-up: the next read or write says which).
/// A descriptor that is always ready (a regular file) returns at once. The descriptor should be non-blocking.
/// Errors:  Errc::deadline_exceeded; the poller's errno (bad descriptor).
/// Threads: any; a plain thread polls for itself. Several may wait for one descriptor: all wake.
/// Lifetime: closing fd does not wake a waiter (shut the connection down first); a number reused afterwards is safe.
std::error_code wait_fd(int fd, Io dir, std::optional<Time> deadline = std::nullopt);
/// The same until ctx is done: then its err(). Errors: Errc::not_running on a plain thread without a runtime.
std::error_code wait_fd(const Context& ctx, int fd, Io dir);

}  // namespace weft
