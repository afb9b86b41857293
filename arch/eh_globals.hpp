// The C++ runtime's two per-thread exception words, which must travel with the goroutine.
//
// The Itanium ABI's __cxa_get_globals() returns the thread's {stack of caught exceptions, count of uncaught
// ones}. A G that parks inside a catch block and resumes on another thread finds the wrong stack there unless
// both words are swapped at every switch. The pointer is fetched once per M: calling it per switch costs 3-12 ns,
// the swap through the cached pointer is not measurable.
// Boost >= 1.88 saves the same words inside its fiber classes; raw jump_fcontext, which we use, never does.
#pragma once

#include "arch/cpu.hpp"

namespace weft::arch {

struct EhGlobals {
  void* caught = nullptr;
  unsigned uncaught = 0;
};

/// The calling thread's words. Valid until the thread ends; never use it from another thread.
EhGlobals* thread_eh_globals();

}  // namespace weft::arch
