// Starting and ending the machine: what runtime.cpp and world.cpp need of it.
#pragma once

#include <weft/runtime.hpp>

#include <vector>

#include "runtime/sched/sched.hpp"

namespace weft::rt {

/// One more P, status Stopped. False: no memory.
bool make_p();
/// Empties a P that goes out of use; the world is stopped.
void retire_p(P* pp);
int change_procs(int n);

/// Makes the calling thread an M until leave_as_m(). For run().
M* enter_as_m();
void leave_as_m(M* mp);
/// A host that blocks SIGQUIT where it calls run() waits for it elsewhere.
bool caller_takes_quit();
/// The M of a thread of the host's, on which goroutines run in its event loop. (threads.cpp)
M* new_host_m();
void enter_host_m(M* mp);
void leave_host_m(M* mp);
bool host_loop_start();
void host_loop_stop();
int host_loop_fd();
int host_loop_run();

/// All threads that left during the run are joined, and their Ms freed.
void free_spare_ms();

/// Boots: Ps, poller, sysmon; no M yet. `config` has been validated.
std::error_code sched_boot(const Config& config, bool in_run);
/// A first M that is not the caller. False: refused.
bool sched_first_m();

/// Wins the waits of all parked goroutines with Outcome::Stop, so that they unwind. What it woke is appended.
void unwind_parked(std::vector<GoroutineInfo>& woken);
/// All goroutines that have not ended.
std::vector<GoroutineInfo> list_alive();

/// After begin_ending(): waits up to `patience_ns` for every M to leave, gives up on those in the kernel. Returns false if
/// one is still in user code.
bool wait_for_ms(std::int64_t patience_ns);
/// The caller of run() is still in user code, or in a blocking call.
bool main_lingers();
/// Gives up on every M that has not left: it parks for ever at its next runtime call.
void abandon_ms();
/// Called by sysmon at each look once the run ends (runtime.cpp): the caller of run() may be the one that is stuck.
extern std::atomic<void (*)()> end_watch;
/// Takes everything down; what belongs to abandoned goroutines stays.
void sched_shutdown();

}  // namespace weft::rt
