// Interrupting one thread: SIGURG, whose handler calls a function of the runtime and then whoever had the signal before.
//
// SIGURG     as Go uses it: debuggers pass it on, libraries rarely handle it, by default it is ignored, and a spurious one means
//            nothing ("out-of-band data may have arrived"): so a host's own handler is always called as well.
// SA_RESTART calls that can go on do; those that cannot (sleeps, polls, calls with a time limit) return EINTR.
#pragma once

#include <csignal>

namespace weft::arch {

/// Async-signal context, on the thread's alternate stack where it has one. `ucontext` is that of the interrupted code.
using InterruptFn = void (*)(void* ucontext);

/// Idempotent. False: refused by the kernel.
bool interrupts_install(InterruptFn f);
/// The handler stays if somebody else's has come on top; it only passes on then.
void interrupts_remove();

/// False: no such thread any more.
bool interrupt_thread(int tid);

/// The calling thread takes the signal from here on, until the return value is given to the other one.
bool interrupts_unblock();
void interrupts_block_again(bool was_blocked);

}  // namespace weft::arch
