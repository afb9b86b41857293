// The one accessor for the current M.
//
// The compiler may keep a TLS address in a register across a switch, and the goroutine may resume on another thread:
// then every later access goes to the wrong thread's copy. So there is one thread-local word in the whole runtime, and
// it is read through volatile asm that the compiler can neither hoist nor merge.
// The word is set once per thread, never per switch: what changes is M::curg.
#pragma once

#include "arch/cpu.hpp"

namespace weft::rt {
struct M;
}

extern "C" {
/// This thread's M, null on a plain thread. Read it through arch::current_m() only.
extern WEFT_INITIAL_EXEC thread_local weft::rt::M* weft_current_m;

/// Where the errno of the thread that runs here is now. <errno.h> declares its own such function constant, so its answer is kept
/// across switches; this one's is not.
int* weft_errno() noexcept;
}

namespace weft::arch {

/// This thread's M; null on a thread that is not the runtime's. Never cached by the compiler.
WEFT_ALWAYS_INLINE rt::M* current_m() {
  rt::M* mp;
#if defined(__x86_64__) && !WEFT_TSAN
  asm volatile("movq weft_current_m@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(mp)::"memory");
#else
  extern rt::M* load_current_m();
  mp = load_current_m();
#endif
  return mp;
}

/// Binds this thread to `mp` (null: none). Called once when an M starts and once when it ends.
void set_current_m(rt::M* mp);

}  // namespace weft::arch
