// Timers as the scheduler sees them: where they are armed, who fires them, who looks in time.
//
// A timer is armed on the heap of the P that arms it. It fires in that P's loop, in a thief's last pass, or in the M that
// sleeps in the poller until the earliest one. While the P runs a G that does not come back to the loop, sysmon looks: so
// whoever arms a timer that is due before sysmon's next look tells it, unless the P is about to go through the loop anyway.
//
// Without a P (a plain thread, say) it is armed on the first one's heap, and who sleeps too long for it is woken:
//
//   arms a timer                               an M goes to sleep (idle.cpp)
//   timer in the heap                          its P is idle; it searches no more
//   fence                                      until = the earliest timer
//   poller_m there: due before poller_until?   poller_until = until, poller_m = itself
//     breaks its sleep                         an earlier timer by now: does not sleep
//   nobody there: wake_one()
//
// Invariant  While a P is idle and every M sleeps, one sleeps in the poller and not beyond the earliest timer.
//            (tests/model/poller_sleep_test.cpp)
// Orders     [idle] see idle.cpp: the M's looks are seq_cst as well.
#include "runtime/base/check.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {

void timer_arm(TimerNode* t) {
  M* mp = current_m();
  if (P* pp = mp ? mp->p : nullptr; WEFT_LIKELY(pp != nullptr)) {
    const std::int64_t when = t->when;
    if (pp->timers.add(t) && when < sysmon_next_look() - kTimerSlack && !mp->curg->system) sysmon_wake();
    return;
  }
  Outside outside(mp);
  if (sched.state.load(memory_order_acquire) == RunState::Off) fatalf("weft: timer armed while no runtime runs");  // [run-state]
  // From a plain thread, or an M without a P: the first P's heap, and whoever sleeps too long for it is woken.
  const std::int64_t when = t->when;
  P* pp = sched.ps[0];
  pp->timers.add(t);
  if (when < sysmon_next_look()) sysmon_wake();
  publish_fence(sched.searching);  // [idle] the timer is armed before we look who sleeps
  if (sched.poller_m.load(memory_order_seq_cst)) {  // [idle]
    if (when < sched.poller_until.load(memory_order_seq_cst)) sched.poller.wake();  // [idle]
  } else {
    wake_one();
  }
}

unsigned run_timers(P* pp, std::int64_t now) {
  sched.coarse_ms.store(static_cast<std::uint32_t>((now - sched.started_at) / 1'000'000), memory_order_relaxed);
  if (pp->timers.earliest() > now) return 0;
  const unsigned n = pp->timers.expire(now);
  if (n > 1) {
    publish_fence(pp->ring.fence_word());  // [idle]
    wake_one();
  }
  return n;
}

std::int64_t earliest_timer() {
  std::int64_t first = kNever;
  const std::uint32_t n = ps_in_use();
  for (std::uint32_t i = 0; i < n; i++) {
    const std::int64_t t = sched.ps[i]->timers.earliest_by_now();  // [idle]
    if (t < first) first = t;
  }
  return first;
}

}  // namespace weft::rt
