// Faults: handlers of SIGSEGV and SIGBUS that share the process with others, the alternate stacks they run on, and the
// registers of the code they interrupted.
//
// Chaining   The handler asks `ours` first. What is not ours goes to the handler that was there before, with its mask and
//            flags; if there was none, the default action is restored and the fault happens again, so that the process
//            ends with the signal it would have ended with.
// Removal    If somebody else's handler has come on top, ours stays installed below it and only passes on.
// Left out   The previous handler of a fault that is not ours runs on the alternate stack even if it did not ask for it:
//            the stack that the fault happened on may be the one that is full.
#pragma once

#include <csignal>
#include <cstddef>
#include <cstdint>

namespace weft::arch {

/// Decides about one fault. Async-signal context, on the thread's alternate stack where it has one. True: dealt with,
/// the interrupted code goes on.
using FaultFn = bool (*)(int signo, siginfo_t* info, void* ucontext);

/// False: refused by the kernel; nothing is installed then.
bool install_fault_handlers(FaultFn ours);
void remove_fault_handlers();

inline constexpr std::size_t kSignalStackBytes = 64 << 10;

/// Gives the calling thread an alternate signal stack with a guard. Null: no memory; the thread keeps what it had.
void* install_signal_stack();
/// The words of one that a handler may use.
void signal_stack_range(const void* stack, std::uintptr_t* lo, std::uintptr_t* hi);
/// Undoes it, on the same thread. Null is fine.
void remove_signal_stack(void* stack);

/// Of the code that a signal interrupted.
struct FaultRegs {
  std::uintptr_t pc = 0;
  std::uintptr_t sp = 0;
  std::uintptr_t fp = 0;
};
FaultRegs fault_regs(const void* ucontext);

}  // namespace weft::arch
