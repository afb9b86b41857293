// Checks of the runtime's own invariants, and the ways to die.
//
// A broken invariant is a fatal error of the runtime: "fatal error: weft: ...". WEFT_CHECK is always on and stands where it
// is off the fast path; WEFT_DCHECK only in debug builds (no NDEBUG).
#pragma once

#include "arch/cpu.hpp"

namespace weft::rt {

/// Prints "fatal error: TEXT", then what the reporter of the layers above adds (stacks), exits with 2. Of several threads
/// the first does, the others never come back. The text is formatted into a fixed buffer and written with write(2): usable
/// anywhere but in signal handlers.
[[noreturn]] void fatalf(const char* format, ...) __attribute__((format(printf, 1, 2)));

[[noreturn]] void check_failed(const char* what, const char* file, int line);

/// What to print after a fatal error's message, and how to leave. Set once by runtime/obs.
extern void (*fatal_reporter)();

}  // namespace weft::rt

#define WEFT_CHECK(cond)                                                      \
  do {                                                                        \
    if (WEFT_UNLIKELY(!(cond))) ::weft::rt::check_failed(#cond, __FILE__, __LINE__); \
  } while (0)

#ifdef NDEBUG
#define WEFT_DCHECK(cond) ((void)0)
#else
#define WEFT_DCHECK(cond) WEFT_CHECK(cond)
#endif
