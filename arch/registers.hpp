// What a thread's registers hold, for who looks for pointers: those that a signal saved, and one's own.
//
// A collector must see every word that a stopped thread could use again: the general registers, and the vector registers too,
// since compilers move pairs of pointers through them. The kernel puts all of them into the signal's frame.
// Red zone   Below its stack pointer a function that was interrupted may have words that it still needs, on CPUs whose ABI has it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arch/cpu.hpp"

namespace weft::arch {

#if defined(__x86_64__)
inline constexpr std::size_t kRedZoneBytes = 128;
inline constexpr unsigned kCalleeSaved = 6;
#else
inline constexpr std::size_t kRedZoneBytes = 0;
inline constexpr unsigned kCalleeSaved = 0;
#error "arch/registers.hpp: add this CPU's callee-saved registers"
#endif

/// What the signal's frame holds of the interrupted code: general registers, then vector registers, and what lies in between.
struct RegisterFile {
  const void* lo = nullptr;
  const void* hi = nullptr;
};
/// Async-signal-safe. Valid while its handler stands.
RegisterFile register_file(const void* ucontext);

WEFT_ALWAYS_INLINE std::uintptr_t stack_pointer() {
  std::uintptr_t sp;
#if defined(__x86_64__)
  asm volatile("movq %%rsp, %0" : "=r"(sp)::"memory");
#endif
  return sp;
}

/// The registers that a function keeps for its callers, in memory of the caller's frame: what calls the frame's function has
/// left in registers is on the stack then.
struct KeptRegisters {
  std::uintptr_t words[kCalleeSaved];
};
WEFT_ALWAYS_INLINE void keep_registers(KeptRegisters& k) {
#if defined(__x86_64__)
  asm volatile(
      "movq %%rbx, 0(%0)\n\tmovq %%rbp, 8(%0)\n\tmovq %%r12, 16(%0)\n\tmovq %%r13, 24(%0)\n\t"
      "movq %%r14, 32(%0)\n\tmovq %%r15, 40(%0)" ::"r"(k.words)
      : "memory");
#endif
}

}  // namespace weft::arch
