// Walking stacks: the own one, that of a context that is not running, and one that a signal interrupted.
//
// Own        libgcc's unwinder (exact, also through signal frames).
// Foreign    The call-frame tables of .eh_frame, which every function of a C++ program has, read by a small interpreter that
//            follows the stack pointer and the frame pointer only: exact for code built with and without frame pointers.
//            Where a function has no table (hand-written assembly, generated code), the frame pointer.
// Bounds     Nothing is read outside [lo, hi) of the stack; each frame lies above the one before. `checked` reads go through
//            the kernel, for stacks that may be unmapped or change under the walk: then frames may be missing or stale,
//            but nothing faults.
// Pieces     A segmented stack is left through __morestack, whose frame lies on the older piece (more_stack_x86_64.cpp).
// Rejected   libunwind and libdw as dependencies. Frame pointers alone: libc and user code without them cut the chain.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arch/context.hpp"

namespace weft::arch {

/// Innermost frame first. `pc` is a return address unless `exact`. False: enough.
using FrameFn = bool (*)(std::uintptr_t pc, bool exact, void* arg);

/// The caller's own stack, the caller's frame first.
void walk_here(FrameFn f, void* arg);

/// Where the function that this is inlined into will return to: for functions that say where a goroutine leaves for the kernel.
WEFT_ALWAYS_INLINE SavedRegs caller_regs() {
#if defined(__x86_64__)
  const auto* frame = static_cast<const std::uintptr_t*>(__builtin_frame_address(0));
  return {frame[1], reinterpret_cast<std::uintptr_t>(frame + 2), frame[0]};
#else
#error "arch/unwind.hpp: add this CPU's frame record"
#endif
}

/// What the walks have learnt about code, by PC: makes a dump of many stacks faster. One thread at a time.
struct FrameRules;
FrameRules* new_frame_rules();
void delete_frame_rules(FrameRules* rules);

struct StackBounds {
  std::uintptr_t lo = 0;
  std::uintptr_t hi = 0;
  bool checked = false;
  std::ptrdiff_t shift = 0;  // the bytes of address a are at a + shift: a stack that has been copied elsewhere
  /// A stack in several pieces: finds the one of `of` that holds `at`. Null: there is only this one.
  bool (*piece)(const void* of, std::uintptr_t at, StackBounds* out) = nullptr;
  const void* of = nullptr;
};

/// Copies `n` bytes from an address that may not be mapped. One kernel call. False: it cannot be read.
bool read_checked(const void* from, void* to, std::size_t n);

/// A context that is not running. `exact`: regs.pc is an instruction, not a return address. `rules` may be null.
void walk_from(const SavedRegs& regs, bool exact, const StackBounds& bounds, FrameRules* rules, FrameFn f, void* arg);

}  // namespace weft::arch
