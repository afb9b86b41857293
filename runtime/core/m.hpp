// M: an OS thread of the runtime.
//
// Its own stack is the context g0, on which the scheduler loop runs. An M runs a G with a P, or, after its P was taken away
// in a blocking call or an overrun, without one until the G's next runtime call.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "arch/cpu.hpp"
#include "arch/eh_globals.hpp"
#include "runtime/base/note.hpp"
#include "runtime/base/rng.hpp"
#include "runtime/core/g.hpp"

namespace weft::rt {

struct P;
struct RunSlot;

/// What an M may run.
enum class Bound : std::uint8_t {
  No,
  Locked,  // only `locked_g`
  Leaves,  // nobody any more: its thread ends
};

/// How long the kernel lets its thread run at a time (sched/turns.hpp).
enum class Turns : std::uint8_t { Usual, Short, Long };

/// What the next context does first for the one that left (sched/switch.hpp).
enum class Commit : std::uint8_t { None, Unlock, Call };

struct alignas(arch::kCacheLine) M {
  Published<G> curg;  // g0 while the loop runs. First: the inlined safepoint reads it
  Relaxed<P*> p;      // null: runs without a P, or is idle
  G* from = nullptr;  // who left in the switch under way
  Commit commit = Commit::None;
  bool searching = false;  // counted in Sched::searching
  bool leaves = false;     // `from` has ended: its context is gone
  Bound bound = Bound::No;
  SpinLock* commit_lock = nullptr;
  void (*commit_call)(M* mp, G* from, void* arg) = nullptr;
  void* commit_arg = nullptr;
  arch::EhGlobals* eh = nullptr;  // this thread's exception words
  G* chosen = nullptr;            // picked, but needs g0 to start

  G g0;

  // --- asleep ---
  Note note;
  M* idle_link = nullptr;       // in Sched's list of idle Ms
  P* next_p = nullptr;          // handed over by the waker
  bool next_searching = false;  // ditto: wakes up counted as searching
  std::atomic<bool> in_poller{false};

  G* locked_g = nullptr;
  RunSlot* run_slot = nullptr;  // that the goroutine which runs here lies on (core/run_slot.hpp)

  // --- blocking calls ---
  P* old_p = nullptr;           // the P it had when it entered the call, or that was taken; null: handed off
  SpinLock take;                // held while somebody tries to take the P of a goroutine in user code (sched/preempt.cpp)
  std::atomic<bool> asked_to_let_go{false};  // by a signal (sched/preempt.cpp)
  Turns turns = Turns::Usual;
  std::uint32_t call_depth = 0; // regions may nest: only the outermost counts
  arch::SavedRegs call;         // where the G entered it
  std::int64_t call_began = 0;  // not 0: its duration is sampled

  // --- standing still (sched/freeze.cpp) ---
  std::atomic<bool> asleep{true};        // runs nothing, and looks at Sched::frozen before it does
  std::atomic<std::uint32_t> freeze_asked{0};  // number of the asking that is to be answered; 0: none
  std::atomic<std::uint32_t> suspended{0};  // odd: its goroutine is; a futex word
  std::atomic<void*> stands_at{nullptr};    // the signal's ucontext: the registers of the code that stands still
  std::uintptr_t stands_sp = 0;             // the lowest word of the handler that it stands in
  std::atomic<std::uintptr_t> sleeps_at{0};  // lowest word of its stack while asleep; 0: not, or its thread ends or begins

  // --- the rest ---
  std::uint32_t id = 0;
  Relaxed<int> tid;
  long long cpu_at_end = -1;  // CPU time used when the run ended (lifecycle.cpp)
  pthread_t thread{};
  bool is_main = false;         // run()'s calling thread: not started by us, not joined
  std::atomic<bool> gone{false};  // left the loop
  std::atomic<bool> abandoned{false};  // the run has ended without it: parks for ever at its next runtime call
  M* all_link = nullptr;
  Rng rng;
  void* signal_stack = nullptr;
  void* stack_lo = nullptr;     // of the thread; null: not asked for (no collector)
  void* stack_hi = nullptr;     // at least what the runtime uses of it
  std::uintptr_t tls_lo = 0;    // its thread-local variables, if they are not on its stack
  std::uintptr_t tls_hi = 0;
  bool urgent_was_blocked = false;  // of run()'s caller: SIGURG
  std::vector<SpinLock*> commit_locks;  // of a select: the copy its commit unlocks from
};

static_assert(offsetof(M, curg) == 0, "include/weft/detail/poll_x86_64.hpp");

}  // namespace weft::rt
