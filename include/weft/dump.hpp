/// weft/dump.hpp: what every goroutine does now, as text.
#pragma once

#include <string>
#include <system_error>

namespace weft {

/// All goroutines in the format of Go's debug=2 dumps: state, wait reason, age, stack, creation site. Stops the world
/// at safepoints for the walk; one that does not come to a safepoint within 100 ms is listed without its stack.
/// Threads: any. Cost: about a microsecond per goroutine, symbols extra.
std::string dump_goroutines();

/// Dumps to stderr whenever the process gets signal `signo`, and goes on. run() does it by itself for SIGQUIT and then
/// exits with 2, as Go does; under Runtime nothing is installed unless asked for here. Returns false if the handler
/// cannot be installed.
bool dump_on_signal(int signo);

/// From here on the report of a process that dies (uncaught panic, fatal error, deadlock, stack overflow, SIGQUIT in run()) goes to
/// `fd` too, beside stderr: a file, or a pipe to a monitor. `fd` is duplicated; -1 ends it. Config::crash_output does this for
/// a path. Threads: any, but one at a time. Errors: those of dup(2). Go: debug.SetCrashOutput.
std::error_code set_crash_output(int fd);

}  // namespace weft
