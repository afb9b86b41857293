/// weft/dump.hpp: what every goroutine does now, as text.
#pragma once

#include <string>

namespace weft {

/// All goroutines in the format of Go's debug=2 dumps: state, wait reason, age, stack, creation site. Stops the world
/// at safepoints for the walk; one that does not come to a safepoint within 100 ms is listed without its stack.
/// Threads: any. Cost: about a microsecond per goroutine, symbols extra.
std::string dump_goroutines();

/// Dumps to stderr whenever the process gets signal `signo`, and goes on. run() does it by itself for SIGQUIT and then
/// exits with 2, as Go does; under Runtime nothing is installed unless asked for here. Returns false if the handler
/// cannot be installed.
bool dump_on_signal(int signo);

}  // namespace weft
