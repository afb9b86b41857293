// Overruns: taking the P from under a goroutine that does not come to a safepoint. The thread runs on with its goroutine; others
// run on the P. Nothing is injected, no register moves, no signal is sent, no other goroutine ever runs on that thread.
//
// Invariant  A goroutine's P is only touched while its depth is above zero (Inside); a goroutine that runs without a P has
//            `preempt` set. So whoever enters the runtime without a P finds out before it touches anything.
// Protocol   The goroutine and the taker (sysmon, or who stops the world) each write one word and read the other's:
//
//              goroutine, in Inside         taker, holding M::take
//              depth = 1                    preempt = 1
//              (compiler barrier)           membarrier: a full barrier in every running thread of the process
//              preempt set? slow path       depth == 0 ? the P is taken : refused
//
//            If the goroutine's store came before its thread's barrier, the taker reads it and refuses. If after, so does its
//            load, which finds the wish; the slow path (keeps_p) then waits for M::take and sees whether the P has gone.
//            The asymmetry is the point: entering the runtime costs no locked instruction.
//            What the taker looked at before the barrier (M, goroutine, count of switches) must be unchanged after it: then it
//            was the same goroutine all the time.
//            No wish is taken away while its taker counts on it: a safepoint's is followed by a switch, which the count
//            shows; who comes back without its P holds M::take. (tests/model/preempt_test.cpp)
// Taken      The P is left as by enter_syscall(): Syscall, remembered in M::old_p. The taker passes it on by the CAS of every
//            retake (detached counts the goroutine then); a goroutine that comes back before that gets it by its own.
// Blocked    A thread that sleeps in somebody else's blocking call is at depth 0 as well: its P is taken the same way, and the
//            call is not interrupted. There is no spare P to add and to retire.
// Refused    Inside the runtime; under NoPreempt; on g0. The wish stays: the next safepoint gives way, sysmon tries again.
// By signal  Where the kernel refuses membarrier, SIGURG makes the thread do it to itself: its handler reads its own words, so no
//            barrier is needed. Not sent to a thread that sleeps in the kernel: its call would be interrupted. WEFT_DEBUG=
//            preemptsignal forces this way, WEFT_DEBUG=preemptoff leaves safepoints only.
// Measured   (2 CPUs, 1 P) a 1 ms sleeper beside one hog: late by 0.1 ms p50, 0.2-0.6 ms p99; beside eight: 0.09 and 2.5-6 ms, where
//            the tail is the kernel's choice among more threads than CPUs: turns.hpp.
// Rejected   The signal as the only way: it interrupts calls that do not restart, needs the CPU clocks of threads and spare Ps for
//            those that block, and a debugger and TSan hold it back.
// Orders     [depth] release on leaving the runtime, acquire by the taker: the P's next owner sees what this one did.
//            [p-status] see core/p.hpp. [take] the lock orders what the taker changed in the M.
#include "arch/barrier.hpp"
#include "arch/interrupt.hpp"
#include "arch/thread.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/knobs.hpp"
#include "runtime/base/log.hpp"
#include "runtime/sched/freeze.hpp"
#include "runtime/sched/lifecycle.hpp"
#include "runtime/sched/sched.hpp"
#include "runtime/sched/turns.hpp"

namespace weft::rt {
namespace {

enum class Way : std::uint8_t { Barrier, Signal, Off };
Way way = Way::Off;

/// In user code, where the P may go. Read by the taker after its barrier, or by the thread itself.
bool may_go(const G* gp) {
  // Depth first: a guard that begins between the two reads raises the depth, and finds the wish there.
  return gp->depth.load(memory_order_acquire) == 0 && gp->no_preempt.load(memory_order_acquire) == 0;  // [depth]
}

/// Leaves `pp` for whoever takes it first. Under M::take, or on the M's own thread.
void let_go(M* mp, G* gp, P* pp) {
  gp->preempt.store(1, memory_order_relaxed);
  sched.overrun.fetch_add(1, memory_order_relaxed);
  mp->old_p = pp;
  mp->p = nullptr;
  pp->m = nullptr;
  pp->status.store(PStatus::Syscall, memory_order_release);  // [p-status]
  take_long_turns(mp);
}

bool free_by_barrier(P* pp) {
  M* mp = pp->m.seen();
  if (!mp) return false;
  bool went = false;
  mp->take.lock();
  G* gp = running_on(mp);
  if (gp) {
    const std::uint64_t switches = pp->switches.load(memory_order_acquire);  // [take]
    gp->preempt.store(1, memory_order_relaxed);
    if (arch::barrier_in_all_threads() && may_go(gp) && running_on(mp) == gp && pp->m.seen() == mp &&
        pp->switches.load(memory_order_acquire) == switches &&                   // [take]
        pp->status.load(memory_order_acquire) == PStatus::Running) {  // [p-status]
      let_go(mp, gp, pp);
      went = true;
    }
  }
  mp->take.unlock();
  return went;
}

bool ask_by_signal(P* pp) {
  M* mp = pp->m.seen();
  const int tid = mp ? static_cast<int>(mp->tid) : 0;
  if (!tid || !running_on(mp) || !arch::thread_is_runnable(tid)) return false;
  mp->asked_to_let_go.store(true, memory_order_relaxed);
  arch::interrupt_thread(tid);
  return false;  // sysmon is woken when it has
}

}  // namespace

void preempt_start(const Config& config) {
  way = debug_has(config, "preemptoff")      ? Way::Off
        : debug_has(config, "preemptsignal") ? Way::Signal
        : arch::barrier_start()              ? Way::Barrier
                                             : Way::Signal;
  if (way == Way::Signal && !arch::interrupts_install(on_interrupt)) {
    log_warn("neither membarrier nor a handler for SIGURG: goroutines give way at safepoints only");
    way = Way::Off;
  }
}

void preempt_stop() { arch::interrupts_remove(); }

bool free_p(P* pp) {
  switch (way) {
    case Way::Barrier: return free_by_barrier(pp);
    case Way::Signal: return ask_by_signal(pp);
    case Way::Off: break;
  }
  return false;
}

void let_go_when_asked(M* mp) {
  if (!mp->asked_to_let_go.exchange(false, memory_order_relaxed)) return;
  G* gp = mp->curg;
  P* pp = mp->p;
  if (gp->system || !pp || !may_go(gp)) return;
  let_go(mp, gp, pp);
  pp->let_go.store(true, memory_order_relaxed);
  sysmon_wake();
}

bool keeps_p(M* mp) {
  check_not_forked();
  // Whoever saw us at depth 0 holds it until the P has gone; nobody else can begin.
  mp->take.lock();
  mp->take.unlock();
  return mp->p;
}

}  // namespace weft::rt

namespace weft {

NoPreempt::NoPreempt() {
  rt::Inside inside;
  rt::G* gp = rt::current_g();
  if (!gp) return;
  const std::uint8_t n = rt::peek(gp->no_preempt);
  if (n == 0xff) rt::fatalf("weft: more than 255 nested NoPreempt guards");
  gp->no_preempt.store(static_cast<std::uint8_t>(n + 1), std::memory_order_release);  // [depth]
}

NoPreempt::~NoPreempt() {
  if (rt::G* gp = rt::current_g())
    gp->no_preempt.store(static_cast<std::uint8_t>(rt::peek(gp->no_preempt) - 1), std::memory_order_release);  // [depth]
  rt::Inside inside;
}

}  // namespace weft
