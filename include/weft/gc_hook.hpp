/// weft/gc_hook.hpp: stopping goroutines from outside, for a companion collector, a profiler or a debugger.
///
/// Two ways to stop the world:
///   stop_world    at safepoints. A goroutine in user code that does not come to one runs on without its P, so its stack still
///                 changes: right for changing the runtime's state, not for reading stacks.
///   freeze_world  every thread of the runtime stands still in a signal handler (SIGURG), at any instruction, inside malloc or the
///                 runtime itself: nothing changes. Until thaw_world() the caller must not allocate, take a lock or call the
///                 runtime, since a frozen thread may hold what that needs. Calls that do not restart return EINTR.
/// One stop at a time: a second stopper waits for the first; stopping again what one has stopped oneself is a Panic.
#pragma once

#include <cstdint>

namespace weft::gc {

/// Threads: any; a goroutine keeps its P and must not block until start_world().
void stop_world();
void start_world();

/// False: some thread did not come within a second (it blocks SIGURG); everybody runs on then.
/// Cost: tens of microseconds per running thread.
bool freeze_world();
void thaw_world();

/// Stops one goroutine where it is; the others run on. When it returns, the goroutine executes no instruction of user code until
/// resume(). Nests. False: there is no such goroutine (any more). Suspending oneself is a Panic.
/// Cost: a stop of the world.
bool suspend(std::uint64_t goid);
/// Panic: it is not suspended.
void resume(std::uint64_t goid);

}  // namespace weft::gc
