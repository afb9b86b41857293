// Stopping at any instruction (freeze.cpp).
#pragma once

#include <cstdint>

#include "runtime/sched/sched.hpp"

namespace weft::rt {

/// All other Ms stand still in a signal handler, or sleep, until thaw_world(). False: some thread did not come; the world runs on.
/// Never switches, waits for no safepoint, allocates only before anybody stands.
bool freeze_world();
void thaw_world();

/// Between the two, and on the thread that called the first: all Ms that were there when the world froze.
struct FrozenMs {
  M* const* first;
  std::size_t count;
};
FrozenMs frozen_ms();
/// The calling thread has frozen the world.
bool frozen_here();
/// The calling thread has stopped it at safepoints (gc::stop_world).
bool stopped_here();
/// While it lives nobody freezes the world, nor looks into a frozen one: for what such a look must not see half done.
class NotFrozen {
 public:
  NotFrozen();
  ~NotFrozen() { sched.freezing.unlock(); }
  NotFrozen(const NotFrozen&) = delete;
  NotFrozen& operator=(const NotFrozen&) = delete;
};
/// The descriptor of `id`, or null. Suspended goroutines stay found.
G* find_g(std::uint64_t id);

/// The descriptor of `id` if it is suspended, else null; it stays so until its resume(). From any thread, the world running or frozen.
G* held_g(std::uint64_t id);

/// False: no such goroutine; or its thread did not come.
bool suspend_g(std::uint64_t id);
bool resume_g(std::uint64_t id);

/// Stops the thread of `mp` in a signal handler, calls `f` with its registers if it still runs `gp`, and lets it go on. False: it does
/// not, or somebody else is stopping the world. `f` must not allocate. Caller: not an M.
bool look_at_running_g(M* mp, G* gp, void (*f)(G* gp, const void* ucontext, void* arg), void* arg);

/// Handler of the interrupt: lets go of the P, stands still, whatever this thread has been asked for.
void on_interrupt(void* ucontext);

/// A thread that ends is not waited for.
void never_freeze(M* mp);

}  // namespace weft::rt
