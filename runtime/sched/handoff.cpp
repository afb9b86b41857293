// Blocking calls: the P is kept for a short one and handed off in a long one.
//
//   enter_syscall   Running -> Syscall by a store; the M forgets its P but remembers which it was
//   exit_syscall    Syscall -> Running by CAS: usually nobody was interested and the M has its P back (5 ns)
//   retake          Syscall -> Running by CAS in sysmon: the P goes to another M; the G's exit takes the slow path
//   enter_blocking  the P is handed off at once
//   slow path       any idle P, else the G joins the global queue and the M sleeps
//
// A P in Syscall has no owner: whoever wins the CAS has it, also an M that had it in an earlier call.
// Orders     [p-status] release on leaving, acq_rel on taking.
//            [idle] see idle.cpp.
#include <cerrno>

#include "arch/unwind.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/sched/switch.hpp"

namespace weft::rt {

void handoff_p(P* pp) {
  const bool work = pp->has_local_work() || peek(sched.global_size) != 0;
  sched.mu.lock();
  if (sched.stopping) {
    pp->status.store(PStatus::Stopped, memory_order_release);  // [p-status]
    pp->attention.fetch_and(~static_cast<std::uint32_t>(kAttendStop), memory_order_relaxed);
    // A P that nobody waits for was stopped already by the stopper itself.
    if (sched.stop_wait > 0 && --sched.stop_wait == 0) sched.stop_note.wake();
    sched.mu.unlock();
    return;
  }
  if (work) {
    give_p_locked(pp, false);
    return;
  }
  push_idle_p(pp);
  sched.mu.unlock();
  // Its timers and the poller need somebody; and work may have come before the P was seen idle.
  if (pp->has_local_work() || peek(sched.global_size) != 0 || !pp->timers.idle() || sched.poller.waiting() != 0) {
    if (!peek(sched.poller_m) || pp->has_local_work() || peek(sched.global_size) != 0)
      wake_one();
    else if (pp->timers.earliest() < sched.poller_until.load(memory_order_seq_cst))  // [idle]
      sched.poller.wake();
  }
}

namespace {

void commit_queue_global(M*, G* from, void*) {
  put_global(from, from->reason == WaitReason::Syscall);  // a call that has ended is what it waited for
  sched.detached.fetch_sub(1, memory_order_relaxed);
  wake_one();
}

// The address of errno may have changed with the thread: never inlined, never cached.
WEFT_NOINLINE void set_errno(int e) {
  asm volatile("" ::: "memory");
  errno = e;
}

}  // namespace

namespace {

/// The P that this M had, if nobody has taken it meanwhile.
WEFT_ALWAYS_INLINE bool take_back(M* mp, P* pp) {
  PStatus mine = PStatus::Syscall;
  // [p-status] sees what whoever had the P meanwhile did with it.
  if (WEFT_UNLIKELY(!pp || !pp->status.compare_exchange_strong(mine, PStatus::Running, memory_order_acq_rel, memory_order_relaxed)))
    return false;
  mp->p = pp;
  pp->m = mp;
  return true;
}

}  // namespace

void reacquire_p(M* mp) {
  stay_if_abandoned(mp);
  G* gp = mp->curg;
  const GStatus was = peek(gp->status);
  // Only the exit from a region comes here with the region closed.
  if (was == GStatus::Syscall && mp->call_depth != 0)
    fatalf("weft: the runtime was called inside blocking() or a SyscallRegion");
  if (was == GStatus::Running) {
    // Its P was taken (preempt.cpp); perhaps nobody has come for it yet.
    sched.overrun.fetch_sub(1, memory_order_relaxed);
    gp->preempt.store(0, memory_order_relaxed);
    P* pp = mp->old_p;
    if (take_back(mp, pp)) return;
  }
  if (acquire_idle_p(mp)) {
    sched.detached.fetch_sub(1, memory_order_relaxed);
    if (was == GStatus::Syscall) set_status(gp, GStatus::Syscall, GStatus::Running);
    if (WEFT_UNLIKELY(peek(gp->preempt))) safepoint_now(mp);
    return;
  }
  gp->reason = was == GStatus::Syscall ? WaitReason::Syscall : WaitReason::Preempted;
  set_status(gp, was, GStatus::Runnable);
  mp->commit = Commit::Call;
  mp->commit_call = commit_queue_global;
  switch_to(mp, gp, &mp->g0);
}

bool retake_p(P* pp, bool global_first) {
  PStatus in_call = PStatus::Syscall;
  sched.detached.fetch_add(1, memory_order_relaxed);
  if (!pp->status.compare_exchange_strong(in_call, PStatus::Running, memory_order_acq_rel, memory_order_relaxed)) {  // [p-status]
    sched.detached.fetch_sub(1, memory_order_relaxed);
    return false;
  }
  if (global_first) {
    pp->picks_left = 1;
    pp->round_turn = kGlobalBeforeNext;
  }
  handoff_p(pp);
  return true;
}

}  // namespace weft::rt

namespace weft::detail {

using namespace rt;

namespace {

/// Inside, but no safepoint yet: the P is not there.
struct InCall {
  explicit InCall(M* mp) : gp(mp ? static_cast<G*>(mp->curg) : nullptr) {
    if (gp) Inside::go_in(gp);
  }
  ~InCall() {
    if (gp) Inside::go_out(gp);
  }
  G* gp;
};

}  // namespace

void enter_syscall() {
  Inside inside;
  M* mp = inside.m;
  if (!mp || mp->curg->system) return;
  if (mp->call_depth++ > 0) return;
  SCHED_POINT("syscall enter");
  P* pp = mp->p;
  if (!pp) {
    reacquire_p(mp);
    mp = current_m();
    pp = mp->p;
    mp->call_depth = 1;
  }
  mp->call = arch::caller_regs();
  set_status(mp->curg, GStatus::Running, GStatus::Syscall);
  mp->old_p = pp;
  mp->p = nullptr;
  pp->m = nullptr;
  bump(pp->syscall_tick);
  pp->status.store(PStatus::Syscall, memory_order_release);  // [p-status]
}

void exit_syscall() noexcept {
  const int saved = errno;
  M* mp = current_m();
  InCall inside(mp);
  if (!mp || mp->curg->system || --mp->call_depth > 0) return;
  SCHED_POINT("syscall exit");
  P* pp = mp->old_p;
  if (WEFT_LIKELY(take_back(mp, pp))) {
    set_status(mp->curg, GStatus::Syscall, GStatus::Running);
    if (WEFT_UNLIKELY(peek(mp->abandoned))) stay_if_abandoned(mp);
    if (WEFT_UNLIKELY(peek(pp->attention))) safepoint_now(mp);
  } else {
    reacquire_p(mp);
  }
  set_errno(saved);
}

void enter_blocking() {
  Inside inside;
  M* mp = inside.m;
  if (!mp || mp->curg->system) return;
  if (mp->call_depth++ > 0) return;
  if (!mp->p) {
    mp->call_depth = 0;
    reacquire_p(mp);
    mp = current_m();
    mp->call_depth = 1;
  }
  mp->call = arch::caller_regs();
  set_status(mp->curg, GStatus::Running, GStatus::Syscall);
  mp->old_p = nullptr;
  sched.detached.fetch_add(1, memory_order_relaxed);
  handoff_p(unbind_p(mp));
}

void exit_blocking() noexcept { exit_syscall(); }

}  // namespace weft::detail
