// x86-64: the jump into Boost's jump_fcontext without a call.
//
// A call pushes an entry on the CPU's return predictor that nothing pops: jump_fcontext ends in an indirect jump on the other
// stack. So after each switch every `ret` of the resumed side would be predicted one frame off, 15 to 20 cycles each. Here the
// return address is pushed by hand and jump_fcontext is jumped to: the predictor sees nothing of the switch, and goroutines
// that park in the same function return as predicted.
// To an unwinder the frame looks as after a call: the pushed address is just behind the jump, the frame is found by rbp (the
// library is built with frame pointers), and jump_fcontext keeps what a callee must keep.
// Trap       The push writes below rsp: no function of the library has a red zone (meson.build).
#pragma once

#include "arch/cpu.hpp"

namespace weft::arch {

WEFT_ALWAYS_INLINE Transfer switch_context(Context to, void* data) {
  Transfer t;
  asm volatile(
      "leaq 1f(%%rip), %%rax\n\t"
      "pushq %%rax\n\t"
      "jmpq *jump_fcontext@GOTPCREL(%%rip)\n"
      "1:"
      : "=a"(t.from), "=d"(t.data), "+D"(to), "+S"(data)
      :
      : "rcx", "r8", "r9", "r10", "r11", "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
        "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "st", "st(1)", "st(2)", "st(3)", "st(4)",
        "st(5)", "st(6)", "st(7)"
#ifdef __AVX512F__
        , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28",
        "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#endif
  );
  return t;
}

}  // namespace weft::arch
