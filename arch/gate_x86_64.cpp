// x86-64: gate_frame(). Nothing but the call, so that its one register and its two ways out are known.
#include "arch/cpu.hpp"
#include "arch/gate.hpp"

#if defined(__x86_64__)

namespace weft::arch {

// pcrel | sdata4: the routine lies in the same module.
__attribute__((naked, noinline, used)) _Unwind_Exception* gate_frame(void (*)(void*), void*, Gate*) {
  asm(".cfi_personality 0x1b, weft_gate_personality\n\t"
      "pushq %rbx\n\t"
      ".cfi_adjust_cfa_offset 8\n\t"
      ".cfi_rel_offset %rbx, 0\n\t"
      "movq %rdx, %rbx\n\t"
      "movq %rdi, %rax\n\t"
      "movq %rsi, %rdi\n\t"
      "callq *%rax\n\t"
      "xorl %eax, %eax\n"
      ".globl weft_gate_landing\n\t"
      ".hidden weft_gate_landing\n"
      "weft_gate_landing:\n\t"  // rax: the exception
      "popq %rbx\n\t"
      ".cfi_adjust_cfa_offset -8\n\t"
      ".cfi_restore %rbx\n\t"
      "retq\n"
      ".globl weft_gate_end\n\t"
      ".hidden weft_gate_end\n"
      "weft_gate_end:\n\t"
      "nop");
}

}  // namespace weft::arch

#endif
