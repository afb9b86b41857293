// Stack overflow, told instead of suffered: the fault handler, and the report that names the goroutine.
#pragma once

namespace weft::rt {

/// Installs the handlers of SIGSEGV and SIGBUS (chained, arch/signal.hpp) and the canary's reporter. Each M still needs its
/// own alternate stack: arch::install_signal_stack() when it starts. False: refused; an overflow then ends the process
/// with the plain signal.
bool overflow_install();
void overflow_remove();

/// Threads that the handler keeps for itself: none (overflow.cpp says why).
inline int overflow_threads() { return 0; }

}  // namespace weft::rt
