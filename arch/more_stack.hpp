// Segmented stacks as the compiler sees them: what code built with -fsplit-stack asks of a thread.
//
// Check      Each such function begins by comparing its stack pointer, less its frame if that is large, with the guard
//            word of its thread (fs:0x70 on x86-64). Below it, it calls __morestack, which runs the rest of the
//            function elsewhere and comes back when that returns. A guard word of 0 never asks: that is what g0, plain
//            threads and goroutines of other kinds run with.
// Linker     Where such a function calls one that is not built so, lld and gold demand 16 KiB more of it, by a larger
//            frame or by calling __morestack_non_split in every case.
// Ours       __morestack is our own (more_stack_x86_64.cpp, a library of its own that is linked into each program or
//            library built so, since the call may not go through a PLT, which would clobber r11). It asks
//            weft_more_stack() in the runtime for a place, copies the arguments that lie on the stack, and calls the
//            rest of the function. libgcc's is not used: it keeps its segments per thread in ten words that would have
//            to be swapped at each switch, has no limit and calls abort() when the kernel refuses memory, and keeps
//            every segment until the thread ends.
// One word   The guard word is all that a thread knows of where it is; what belongs to it is found from the stack
//            pointer (core/segments.hpp). So a switch sets one word, and a word that is out of date (longjmp, a handler
//            on a stack of its own) costs a needless question, which is answered by "go on where you are".
#pragma once

#include <cstddef>
#include <cstdint>

#include "arch/cpu.hpp"

namespace weft::arch {

#if WEFT_SEGMENTED
inline constexpr bool kSegmented = true;
#else
inline constexpr bool kSegmented = false;
#endif

#if defined(__x86_64__)

WEFT_ALWAYS_INLINE std::uintptr_t guard_word() {
  std::uintptr_t w;
  asm volatile("movq %%fs:0x70, %0" : "=r"(w)::"memory");
  return w;
}

WEFT_ALWAYS_INLINE void set_guard_word(std::uintptr_t w) { asm volatile("movq %0, %%fs:0x70" ::"r"(w) : "memory"); }

#else

static_assert(!kSegmented, "arch/more_stack.hpp: where is this CPU's guard word?");
inline std::uintptr_t guard_word() { return 0; }
inline void set_guard_word(std::uintptr_t) {}

#endif

/// In the frame of __morestack, which reads it when the function has returned or thrown.
struct SplitCall {
  void* segment;         // that it has been moved to; null: it went on where it was
  std::uintptr_t guard;  // the guard word before; from then on
};

/// Some code of this process is linked with our __morestack.
bool split_code_is_there();

}  // namespace weft::arch

extern "C" {
/// Where to go on: the address below which the function's arguments and frame are to lie, or null: where it is. The
/// guard word is 0 and is set, to the place's. `sp` points at __morestack's frame, just below what the caller pushed.
/// (sched/segmented.cpp)
void* weft_more_stack(std::size_t frame, std::size_t args, std::uintptr_t sp, weft::arch::SplitCall* call) noexcept;
/// The function that `segment` was entered for has ended, and there is more to do than that. On the older stack; the
/// guard word is 0.
void weft_less_stack(void* segment) noexcept;
/// What alloca() and arrays of variable size call when the segment has no room. The name is the compiler's.
void* __morestack_allocate_stack_space(std::size_t bytes) noexcept;
/// A copy of __morestack is loaded.
void weft_has_more_stack() noexcept;
}
