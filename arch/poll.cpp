// Polls that the compiler inserts: what code built with -fsanitize-coverage=trace-pc calls at every basic block.
//
// Fast path  As weft::safepoint(): the thread's M, its G, the G's wish. No M (a plain thread), no wish: back at once. In assembly,
//            so that nothing here can itself be instrumented, needs a frame, or touches more than rax and the flags.
// Registers  To the compiler the callback is a function like any other: what it may clobber its caller has saved, vector and mask
//            registers included, and the rest the slow half keeps as every function does. So there is nothing to save here, and
//            the jump leaves the stack as the call made it: unwinders see the user's frame right above the slow half's.
// Own file   A program that brings a callback of its own (a fuzzer) must not get a second one out of the archive.
// Trap       The weak callbacks in the sanitizers' runtimes are those of trace-pc-guard: none of them hides this one.
//            Exported by hand, since -fvisibility=hidden may be in force.
#include "arch/cpu.hpp"

#include <weft/detail/poll_cpu.hpp>

extern "C" {
void weft_poll_slow() noexcept;  // runtime/block/poll.cpp
__attribute__((visibility("default"))) void __sanitizer_cov_trace_pc();
}

#if defined(__x86_64__)

static_assert(weft::detail::kMCurgOffset == 0 && weft::detail::kGPreemptOffset == 0, "the loads below");

WEFT_NO_COVERAGE __attribute__((naked)) void __sanitizer_cov_trace_pc() {
  asm("movq weft_current_m@gottpoff(%rip), %rax\n\t"
      "movq %fs:(%rax), %rax\n\t"
      "testq %rax, %rax\n\t"
      "je 1f\n\t"
      "movq (%rax), %rax\n\t"
      "cmpb $0, (%rax)\n\t"
      "jne 2f\n"
      "1:\n\t"
      "ret\n"
      "2:\n\t"
      "jmp weft_poll_slow@PLT");
}

#else

WEFT_NO_COVERAGE void __sanitizer_cov_trace_pc() {
  if (WEFT_UNLIKELY(weft::detail::preempt_requested())) weft_poll_slow();
}

#endif
