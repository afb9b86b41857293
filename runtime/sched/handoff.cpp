// Blocking calls: the P is kept for a short one and handed off in a long one.
//
//   enter_syscall   Running -> Syscall by a store; the M forgets its P but remembers which it was
//   exit_syscall    Syscall -> Running by CAS: usually nobody was interested and the M has its P back (5 ns)
//   retake          Syscall -> Running by CAS in sysmon: the P goes to another M; the G's exit takes the slow path
//   enter_blocking  the P is handed off at once
//   slow path       any idle P, else the G joins the global queue and the M sleeps
//
// Learning   A region that lasts is better off as enter_blocking: sysmon's look comes 200 us late. So each place that opens a
//            region keeps a moving mean of how long it lasts, from one call in 17 (a clock read costs as much as the rest of
//            enter and exit), and above 20 us it gives the P up at once. Places are found by their return address in a small
//            table; who comes to be in a used one starts anew.
// Gate       Under Runtime at most Config::blocking_max goroutines are in blocking() at once, the others wait in order: a
//            library in somebody's process does not take threads without limit. In run() there is threads_max alone, as in Go.
//
// A P in Syscall has no owner: whoever wins the CAS has it, also an M that had it in an earlier call.
// Orders     [p-status] release on leaving, acq_rel on taking.
//            [safepoint] see sched.hpp. [idle] see idle.cpp. [place] relaxed: a lost or mixed-up sample is a slightly wrong mean.
#include <cerrno>

#include "arch/unwind.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/sched/switch.hpp"
#include "runtime/sched/turns.hpp"

namespace weft::rt {

namespace {

// Goroutines in blocking(), under Runtime.
struct Gate {
  SpinLock lock;
  WaitQueue waiting;
  std::uint32_t inside = 0;
};
Gate gate;

}  // namespace

void reset_gate() { gate.inside = 0; }

void (*safepoint_reporter)(G* gp) = nullptr;

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

// The world may be stopped: only now, with its context saved, does the G count as one that does not run.
void commit_queue_global(M*, G* from, void*) {
  set_status(from, peek(from->status), GStatus::Runnable);
  const bool woken = from->reason == WaitReason::Syscall;  // a call that has ended is what it waited for
  put_global(from, woken);
  sched.detached.fetch_sub(1, memory_order_relaxed);
  wake_one();
  if (woken) sysmon_see_to_woken();
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
    // Its P was taken (preempt.cpp).
    sched.overrun.fetch_sub(1, memory_order_relaxed);
    // Not while another taker counts on it: that one came for the P before it had gone, and would take it from us once
    // it is back.
    mp->take.lock();
    gp->preempt.store(0, memory_order_seq_cst);  // [safepoint]
    mp->take.unlock();
    fit_turns(mp);
  }
  report_safepoint(gp);
  if (was == GStatus::Running && take_back(mp, mp->old_p)) return;  // perhaps nobody has come for it yet
  if (acquire_idle_p(mp)) {
    sched.detached.fetch_sub(1, memory_order_relaxed);
    if (was == GStatus::Syscall) set_status(gp, GStatus::Syscall, GStatus::Running);
    if (WEFT_UNLIKELY(peek(gp->preempt))) safepoint_now(mp);
    return;
  }
  gp->reason = was == GStatus::Syscall ? WaitReason::Syscall : WaitReason::Preempted;
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
  // Who has run before comes before newcomers, each of which may be one more that computes.
  pp->fresh_turn = true;
  if (global_first) pp->started_first = kStartedAfterOverrun;
  handoff_p(pp);
  return true;
}

}  // namespace weft::rt

namespace weft::detail {

using namespace rt;

namespace {

// ---- what the places that open regions have learnt ---------------------------------------------------------------------

constexpr std::uint32_t kPlaces = 256;
constexpr std::uint32_t kSampleEach = 17;  // a prime: places that take turns are all seen
constexpr std::uint32_t kLongCall = 20'000;
constexpr std::int64_t kTakenAfter = 200'000;
constexpr std::uint32_t kMeanMost = 1'000'000'000;

struct Place {
  std::atomic<std::uintptr_t> pc{0};
  std::atomic<std::uint32_t> mean_ns{0};
};
Place places[kPlaces];

WEFT_ALWAYS_INLINE Place* place_of(std::uintptr_t pc) { return &places[(pc * 0x9e3779b97f4a7c15ULL) >> 56]; }

void learn(std::uintptr_t pc, std::int64_t took) {
  Place* at = place_of(pc);
  const auto ns = static_cast<std::uint32_t>(took < kMeanMost ? took : kMeanMost);
  if (peek(at->pc) != pc) {
    at->pc.store(pc, memory_order_relaxed);  // [place]
    at->mean_ns.store(ns, memory_order_relaxed);
    return;
  }
  const std::uint32_t mean = peek(at->mean_ns);
  at->mean_ns.store(mean - mean / 4 + ns / 4, memory_order_relaxed);  // [place]
}

WEFT_NOINLINE void sample(M* mp) {
  learn(mp->call.pc, arch::clock_now() - mp->call_began);
  mp->call_began = 0;
}

WEFT_ALWAYS_INLINE bool lasts(std::uintptr_t pc) {
  const Place* at = place_of(pc);
  return peek(at->pc) == pc && peek(at->mean_ns) > kLongCall;
}

// ---- the gate ----------------------------------------------------------------------------------------------------------

void pass_gate(M* mp) {
  G* gp = mp->curg;
  gate.lock.lock();
  if (gate.inside < static_cast<std::uint32_t>(sched.config->blocking_max)) {
    gate.inside++;
    gate.lock.unlock();
    return;
  }
  Waiter* w = &gp->waiter;
  const std::uint64_t ticket = w->begin();
  w->node.waiter = w;
  w->node.ticket = ticket;
  w->node.elem = nullptr;
  w->node.racy = gp->domain != nullptr;
  gate.waiting.push(&w->node, &gate.lock);
  // Its place passes from who leaves.
  if (wait_on(w, ticket, WaitReason::BlockingCall, &gate, &gate.lock, kNever) == Outcome::Cancel) cancel_thrower();
}

void leave_gate() {
  gate.lock.lock();
  WaitNode* next = gate.waiting.pop_winner(Outcome::Wake);
  if (!next) gate.inside--;
  gate.lock.unlock();
  if (next) wake_waiter(next->waiter);
}

/// Gives the P up. The caller is inside, and its G has a P.
void enter_without_p(M* mp) {
  set_status(mp->curg, GStatus::Running, GStatus::Syscall);
  mp->old_p = nullptr;
  sched.detached.fetch_add(1, memory_order_relaxed);
  handoff_p(unbind_p(mp));
}

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
  mp->call = arch::caller_regs();
  if (WEFT_UNLIKELY(lasts(mp->call.pc))) {
    mp->call_began = arch::clock_now();
    enter_without_p(mp);
    return;
  }
  set_status(mp->curg, GStatus::Running, GStatus::Syscall);
  mp->old_p = pp;
  mp->p = nullptr;
  pp->m = nullptr;
  bump(pp->syscall_tick);
  if (WEFT_UNLIKELY(--pp->sample_in == 0)) {
    pp->sample_in = kSampleEach;
    mp->call_began = arch::clock_now();
  }
  pp->status.store(PStatus::Syscall, memory_order_release);  // [p-status]
}

namespace {

/// The P is back, and somebody wants something; or it is not. What the call said in errno stays, also on another thread.
WEFT_NOINLINE void exit_slowly(M* mp, P* pp, bool back) {
  const int saved = errno;
  const bool sampled = mp->call_began != 0;
  if (sampled) sample(mp);
  if (back) {
    if (peek(mp->abandoned)) stay_if_abandoned(mp);
    if (peek(pp->attention)) safepoint_now(mp);
  } else {
    if (pp && !sampled) learn(mp->call.pc, kTakenAfter);  // sysmon came for it
    reacquire_p(mp);
  }
  set_errno(saved);
}

}  // namespace

void exit_syscall() noexcept {
  M* mp = current_m();
  InCall inside(mp);
  if (!mp || mp->curg->system || --mp->call_depth > 0) return;
  SCHED_POINT("syscall exit");
  P* pp = mp->old_p;
  const bool back = take_back(mp, pp);
  if (WEFT_LIKELY(back)) {
    set_status(mp->curg, GStatus::Syscall, GStatus::Running);
    if (WEFT_LIKELY(!peek(mp->abandoned) && !peek(pp->attention) && mp->call_began == 0)) return;
  }
  exit_slowly(mp, pp, back);
}

void enter_blocking() {
  Inside inside;
  M* mp = inside.m;
  if (!mp || mp->curg->system) return;
  if (mp->call_depth > 0) {
    mp->call_depth++;
    return;
  }
  if (!sched.in_run) {
    pass_gate(mp);
    mp = current_m();
  }
  mp->call_depth = 1;
  mp->call = arch::caller_regs();
  enter_without_p(mp);
}

void exit_blocking() noexcept {
  const M* mp = current_m();
  if (mp && !mp->curg->system && mp->call_depth == 1 && !sched.in_run && !peek(mp->abandoned)) leave_gate();
  exit_syscall();
}

}  // namespace weft::detail
