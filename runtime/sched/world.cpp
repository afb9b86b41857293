// Stopping the world at safepoints, and changing the number of Ps.
//
// Protocol   One stopper at a time (Sched::world). Under Sched::mu it marks the world as stopping, takes the idle Ps and those
//            in blocking calls, and counts the running ones. These find kAttendStop in the loop, or their G finds `preempt` at
//            its next safepoint, and each counts itself down; the last one wakes the stopper, which stays awake for a moment first.
//            G and P may change between its looks, so it marks again every few hundred microseconds until all are there, and takes
//            the Ps of those that are in user code.
//
//              M in a call                            stopper, under mu
//              Running -> Syscall by a store          mark: Running: counted, asked (attention)
//                (counts nothing: nobody waits)       looks again: Syscall -> Stopped by CAS, counted down
//              back: Syscall -> Running by CAS          ... or the CAS fails, and the M has read attention since
//              attention? its G gives way, and          or reads it at the next one
//              the loop counts down
//
// Invariants A P is counted once, by the first mark, and counted down once, by whoever makes it Stopped: its M
//            (sleep_until_work), who hands it off or cannot start an M for it, or the stopper. None is idle while the
//            world stops. (tests/model/world_test.cpp)
// A G that wants to stop the world while another stopper is at work must itself come to a safepoint: it never blocks on
// Sched::world with a P in hand.
// Orders     [p-status] see core/p.hpp.
#include <thread>
#include <utility>

#include "arch/thread.hpp"
#include "runtime/base/check.hpp"
#include "runtime/sched/lifecycle.hpp"
#include "runtime/sched/procs.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

constexpr std::int64_t kFirstLook = 50'000;
constexpr std::int64_t kLongestLook = 1'000'000;

void ask_to_stop(P* pp) {
  pp->attention.fetch_or(kAttendStop, memory_order_relaxed);
  ask_running(pp);
}

/// Takes Ps in blocking calls, asks the running ones. mu held.
void mark(P* own, bool first) {
  const std::uint32_t n = peek(sched.procs);
  for (std::uint32_t i = 0; i < n; i++) {
    P* pp = sched.ps[i];
    if (pp == own) continue;
    PStatus s = pp->status.load(memory_order_acquire);  // [p-status]
    // Asked before, and still in user code: it goes on there without its P.
    if (s == PStatus::Running && !first && free_p(pp)) s = PStatus::Syscall;
    if (s == PStatus::Syscall) {
      // Counted as detached: its G goes on in the kernel without a P.
      sched.detached.fetch_add(1, memory_order_relaxed);
      if (pp->status.compare_exchange_strong(s, PStatus::Stopped, memory_order_acq_rel, memory_order_relaxed)) {  // [p-status]
        pp->attention.fetch_and(~static_cast<std::uint32_t>(kAttendStop), memory_order_relaxed);
        if (!first && --sched.stop_wait == 0) sched.stop_note.wake();
        continue;
      }
      sched.detached.fetch_sub(1, memory_order_relaxed);
      s = PStatus::Running;  // just came back
    }
    if (s == PStatus::Running) {
      if (first) sched.stop_wait++;
      ask_to_stop(pp);
    } else if (s == PStatus::Idle && first) {
      pp->status.store(PStatus::Stopped, memory_order_release);  // [p-status]
    }
  }
}

/// The last of those that were asked has come, or `ns` have passed. Awake: they come within microseconds, where there are CPUs for
/// all, and who sleeps is one more that waits for a CPU.
void await_answers(std::int64_t ns) {
  static const bool alone = arch::allowed_cpus() == 1;
  if (alone) {
    sched.stop_note.sleep_until(arch::clock_now() + ns);
    return;
  }
  const std::int64_t until = arch::clock_now() + ns;
  while (!sched.stop_note.woken() && arch::clock_now() < until)
    for (int i = 0; i < 8; i++) arch::cpu_pause();
}

}  // namespace

void lock_world() {
  for (;;) {
    M* mp = current_m();
    const bool g_with_p = mp && !mp->curg->system && mp->p;
    if (!g_with_p) {
      sched.world.lock();
      return;
    }
    if (sched.world.try_lock()) return;
    safepoint_now(mp);
  }
}

bool stop_world(std::int64_t limit_ns) {
  lock_world();
  M* mp = current_m();
  P* own = mp ? mp->p : nullptr;
  const std::int64_t limit = limit_ns == kNever ? kNever : arch::clock_now() + limit_ns;
  sched.stop_note.clear();
  sched.mu.lock();
  WEFT_CHECK(!sched.stopping);
  sched.stopping = true;
  sched.stop_wait = 0;
  mark(own, true);
  sched.idle_ps = nullptr;
  sched.idle_ps_count.store(0, memory_order_seq_cst);  // [idle]
  bool all = sched.stop_wait == 0;
  sched.mu.unlock();
  for (std::int64_t look = kFirstLook; !all; look = look * 2 < kLongestLook ? look * 2 : kLongestLook) {
    if (look == kFirstLook)
      await_answers(look);
    else
      sched.stop_note.sleep_until(arch::clock_now() + look);
    sched.mu.lock();
    all = sched.stop_wait == 0;
    if (!all) mark(own, false);
    all = sched.stop_wait == 0;
    sched.mu.unlock();
    if (!all && limit != kNever && arch::clock_now() >= limit) {
      start_world();
      return false;
    }
  }
  return true;
}

void start_world() {
  M* mp = current_m();
  P* own = mp ? mp->p : nullptr;
  P* busy = nullptr;  // chained by idle_link
  sched.mu.lock();
  sched.stopping = false;
  const std::uint32_t n = peek(sched.procs);
  for (std::uint32_t i = n; i-- > 0;) {
    P* pp = sched.ps[i];
    pp->attention.fetch_and(~static_cast<std::uint32_t>(kAttendStop), memory_order_relaxed);
    if (pp == own || pp->status.load(memory_order_acquire) != PStatus::Stopped) continue;  // [p-status]
    if (pp->has_local_work()) {
      pp->status.store(PStatus::Running, memory_order_release);  // [p-status]
      pp->idle_link = busy;
      busy = pp;
    } else {
      push_idle_p(pp);
    }
  }
  if (sched.state.load(memory_order_acquire) == RunState::Ending) {  // [run-state]
    for (std::uint32_t i = 0; i < n; i++) sched.ps[i]->attention.fetch_or(kAttendStop, memory_order_relaxed);
  }
  sched.mu.unlock();
  while (busy) {
    P* pp = std::exchange(busy, busy->idle_link);
    pp->idle_link = nullptr;
    sched.mu.lock();
    give_p_locked(pp, false);
  }
  sched.world.unlock();
  // Whatever came meanwhile, and timers and descriptors whose M sleeps on its note now: one M looks through it all.
  wake_one();
}

int change_procs(int want) {
  const int old = static_cast<int>(peek(sched.procs));
  if (want < 1 || want == old) return old;
  const auto n = static_cast<std::uint32_t>(want) < kProcsMax ? static_cast<std::uint32_t>(want) : kProcsMax;
  stop_world();
  const std::uint32_t had = peek(sched.procs);
  while (ps_there() < n && make_p()) {
  }
  const std::uint32_t now = n < ps_there() ? n : ps_there();
  for (std::uint32_t i = had; i < now; i++) sched.ps[i]->status.store(PStatus::Stopped, memory_order_release);  // [p-status]
  for (std::uint32_t i = now; i < had; i++) retire_p(sched.ps[i]);
  sched.procs.store(now, memory_order_release);  // [procs]
  for (std::uint32_t i = 0; i < now; i++) sched.ps[i]->solo = now == 1;
  M* mp = current_m();
  if (mp && mp->p && mp->p->id >= now) {
    unbind_p(mp)->status.store(PStatus::Retired, memory_order_release);  // [p-status]
    bind_p(mp, sched.ps[0]);
  }
  start_world();
  return static_cast<int>(had);
}

}  // namespace weft::rt

namespace weft {

int procs() {
  const std::uint32_t n = rt::peek(rt::sched.procs);
  return n ? static_cast<int>(n) : rt::default_procs();
}

int set_procs(int n) {
  const rt::RunState s = rt::sched.state.load(std::memory_order_acquire);  // [run-state]
  if (s == rt::RunState::Off || s == rt::RunState::Ending) {
    if (n < 1) return procs();
    rt::fatalf("weft: set_procs called while no runtime runs");
  }
  rt::Inside inside;
  if (n > 0) rt::procs_fix(n);
  return rt::change_procs(n);
}

}  // namespace weft
