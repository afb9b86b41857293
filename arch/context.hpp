// The switch: Boost.Context's make_fcontext / jump_fcontext behind three functions.
//
// Protocol   switch_context(to, data) leaves the running context and resumes `to`. The context that resumes gets
//            {from, data}: the handle of the one that left and the word it passed. So the leaver's handle is stored
//            by the resumed side, on its own stack: what must happen "after the old context is saved" can only be
//            done there (see landed() in sched/switch.hpp).
// Trap       A `ret` right after the switch misses the return predictor (9 ns become 21): the wrappers are inlined by
//            force into their callers, and the switch itself is no call where that can be had (switch_x86_64.hpp).
// Rejected   ontop_fcontext for the commit (10.4 ns instead of 4.5).
// Boost      The C symbols are stable from 1.61 on; newer versions hide them in the shared library (link static).
//            The saved frame's layout is CPU- and version-specific: context_<cpu>.cpp measures it at start.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arch/cpu.hpp"

namespace weft::arch {

using Context = void*;

struct Transfer {
  Context from;
  void* data;
};

extern "C" {
Transfer jump_fcontext(Context to, void* data);
Context make_fcontext(void* top, std::size_t size, void (*entry)(Transfer));
}

}  // namespace weft::arch

// The sanitizers and builds with a shadow stack must see a call.
#if defined(__x86_64__) && defined(__LP64__) && !WEFT_ASAN && !WEFT_TSAN && !defined(__SHSTK__)
#include "arch/switch_x86_64.hpp"
#else
#include "arch/switch_generic.hpp"
#endif

namespace weft::arch {

/// A context that will run `entry` on [top - size, top). `entry` must begin with WEFT_MARK_ENTRY and never return.
Context make_context(void* top, std::size_t size, void (*entry)(Transfer));

/// What an unwinder needs of a context that is not running.
struct SavedRegs {
  std::uintptr_t pc = 0;
  std::uintptr_t sp = 0;  // after resumption
  std::uintptr_t fp = 0;
};

/// Reads them out of a saved context. `pc` is a return address, except for one that never ran.
SavedRegs saved_regs(Context ctx);

/// Finds the layout of Boost's saved frame on this machine. False: unknown layout (unwinding of parked goroutines
/// is off then; switching works).
bool probe_context_layout();

// Marks the entry frame so that unwinders stop there: the return address is undefined. First statement of an entry.
#if defined(__x86_64__)
#define WEFT_MARK_ENTRY asm volatile(".cfi_undefined rip")
#elif defined(__aarch64__)
#define WEFT_MARK_ENTRY asm volatile(".cfi_undefined x30")
#endif

}  // namespace weft::arch
